"""From a scheduled batch to the tensors of one packed forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BatchInputs:
    """R rows of together T tokens, one after the other without padding."""

    input_ids: torch.Tensor
    """[T] int64 on the device."""
    position_ids: torch.Tensor
    """[T] int64: each token's place in its own sequence."""
    slots: torch.Tensor
    """[T] int64: where the KV of each token goes, block * block_size + offset."""
    logits_index: torch.Tensor
    """[S] int64: the last token of each row that samples."""
    query_lens: tuple[int, ...]
    """Tokens of each row in this step."""
    context_lens: tuple[int, ...]
    """Tokens of each row with KV after this step, its own included."""
    block_tables: tuple[IntArray, ...]
    """The blocks of each row, as many as its context needs."""


def build_batch_inputs(batch: ScheduledBatch, block_size: int, device: torch.device) -> BatchInputs:
    """Packs the rows in their order. Takes only each row's new tokens and its block table as a whole: no work grows
    with what a sequence has generated."""
    tables = tuple(np.asarray(row.sequence.block_table, dtype=np.int64) for row in batch.rows)
    positions = [_positions(row) for row in batch.rows]
    slots = [
        table[where // block_size] * block_size + where % block_size
        for table, where in zip(tables, positions, strict=True)
    ]
    query_lens = tuple(row.num_tokens for row in batch.rows)
    ends = np.cumsum(query_lens)
    sampling = [row.samples for row in batch.rows]

    def on_device(array: IntArray) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return BatchInputs(
        input_ids=on_device(np.concatenate([_new_tokens(row) for row in batch.rows])),
        position_ids=on_device(np.concatenate(positions)),
        slots=on_device(np.concatenate(slots)),
        logits_index=on_device(ends[sampling] - 1),
        query_lens=query_lens,
        context_lens=tuple(row.sequence.num_computed + row.num_tokens for row in batch.rows),
        block_tables=tables,
    )


def _positions(row: ScheduledRow) -> IntArray:
    start = row.sequence.num_computed
    return np.arange(start, start + row.num_tokens, dtype=np.int64)


def _new_tokens(row: ScheduledRow) -> IntArray:
    start = row.sequence.num_computed
    return np.asarray(row.sequence.tokens[start : start + row.num_tokens], dtype=np.int64)
