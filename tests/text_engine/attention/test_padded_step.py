"""Ragged block tables as a matrix, and everything on the device in one copy."""

from __future__ import annotations

import numpy as np
import torch

from vfastml.text_engine.attention.padded_step import PaddedStep, padded_tables
from vfastml.text_engine.batch_inputs import BatchInputs


def int32(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


def test_tables_are_padded_with_zeros() -> None:
    tables = padded_tables(int32(7, 5, 9, 4, 8, 6), int32(0, 2, 3, 6))
    assert tables.tolist() == [[7, 5, 0], [9, 0, 0], [4, 8, 6]]
    assert tables.dtype == np.int32


def test_a_step_of_three_rows() -> None:
    tokens = torch.arange(8)
    inputs = BatchInputs(
        input_ids=tokens,
        position_ids=tokens,
        slots=tokens,
        logits_index=tokens,
        query_starts=int32(0, 1, 6, 8),
        context_lens=int32(7, 5, 11),
        block_tables=int32(7, 5, 9, 3, 4, 8, 6),
        block_starts=int32(0, 2, 4, 7),
    )
    step = PaddedStep.of(inputs)
    assert step.query_starts.tolist() == [0, 1, 6, 8]
    assert step.context_lens.tolist() == [7, 5, 11]
    assert step.key_starts.tolist() == [0, 7, 12, 23]
    assert step.block_tables.tolist() == [[7, 5, 0], [9, 3, 0], [4, 8, 6]]
    assert (step.max_query_len, step.max_context_len) == (5, 11)
    assert step.slots is tokens
    parts = (step.query_starts, step.context_lens, step.key_starts, step.block_tables)
    assert {part.dtype for part in parts} == {torch.int32}
    assert all(part.is_contiguous() for part in parts)
    assert [part.storage_offset() % 4 for part in parts] == [0] * 4  # of 4 bytes each: the kernels may load 16
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
