"""What a batch says, token by token, is what its packed form says."""

from __future__ import annotations

from array import array

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow
from vfastml.text_engine.sequence import Sequence

BLOCK = 4


@st.composite
def batches(draw: st.DrawFn) -> ScheduledBatch:
    rows = []
    for number in range(draw(st.integers(min_value=1, max_value=6))):
        computed, new, left = (draw(st.integers(least, 20)) for least in (0, 1, 0))
        tokens = draw(st.lists(st.integers(0, 1 << 17), min_size=computed + new + left, max_size=computed + new + left))
        sequence = Sequence(f"{number}", tokens, Sampling(max_tokens=9), arrival=number)
        sequence.num_computed = computed
        num_blocks = -(-(computed + new) // BLOCK)
        blocks = st.lists(st.integers(0, 1 << 20), min_size=num_blocks, max_size=num_blocks)
        sequence.block_table = array("i", draw(blocks))
        rows.append(ScheduledRow(sequence, new, left == 0))
    return ScheduledBatch(tuple(rows), ())


@given(batches())
def test_every_token_of_every_row(batch: ScheduledBatch) -> None:
    inputs = build_batch_inputs(batch, BLOCK, torch.device("cpu"))
    assert (inputs.query_starts[0], inputs.block_starts[0]) == (0, 0)
    assert inputs.query_starts[-1] == len(inputs.input_ids) == len(inputs.position_ids) == len(inputs.slots)
    assert inputs.block_starts[-1] == len(inputs.block_tables)
    for number, row in enumerate(batch.rows):
        sequence, places = row.sequence, range(row.sequence.num_computed, row.sequence.num_computed + row.num_tokens)
        own = slice(*inputs.query_starts[number : number + 2])
        assert inputs.input_ids[own].tolist() == [sequence.tokens[place] for place in places]
        assert inputs.position_ids[own].tolist() == list(places)
        slots = [sequence.block_table[place // BLOCK] * BLOCK + place % BLOCK for place in places]
        assert inputs.slots[own].tolist() == slots
        assert inputs.context_lens[number] == places.stop
        table = inputs.block_tables[slice(*inputs.block_starts[number : number + 2])]
        assert table.tolist() == list(sequence.block_table)
    ends = inputs.query_starts[1:][[row.samples for row in batch.rows]]
    assert inputs.logits_index.tolist() == (ends - 1).tolist()


@given(batches())
def test_forms_that_kernels_rely_on(batch: ScheduledBatch) -> None:
    inputs = build_batch_inputs(batch, BLOCK, torch.device("cpu"))
    for tensor in (inputs.input_ids, inputs.position_ids, inputs.slots, inputs.logits_index):
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    for numbers in (inputs.query_starts, inputs.context_lens, inputs.block_tables, inputs.block_starts):
        assert numbers.dtype == np.int32
        assert numbers.flags.c_contiguous
