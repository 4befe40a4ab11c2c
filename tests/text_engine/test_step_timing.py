"""Which steps are run to measure them, and when measuring stops. The clock is the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.step_profile import StepProfile
from vfastml.text_engine.step_timing import StepBounds, measure_steps

BLOCK = 16
PLENTY = Limits(max_model_len=8192, max_num_seqs=64, num_blocks=10_000, block_size=BLOCK)


class Machine:
    """Takes as long for a batch as it is told, and remembers what it ran."""

    def __init__(self, seconds: Callable[[int, bool], float]) -> None:
        self.now = 0.0
        self.batches: list[ScheduledBatch] = []
        self._seconds = seconds

    def run(self, batch: ScheduledBatch) -> None:
        self.batches.append(batch)
        is_decode = all(row.num_tokens == 1 and row.sequence.num_computed for row in batch.rows)
        self.now += self._seconds(sum(row.num_tokens for row in batch.rows), is_decode)

    def measure(self, limits: Limits = PLENTY, max_tokens: int = 512, longest_s: float | None = 0.25) -> StepProfile:
        return measure_steps(self.run, StepBounds.within(limits, max_tokens, longest_s), BLOCK, lambda: self.now)


def sizes(profile: StepProfile) -> tuple[list[int], list[int]]:
    return [step.tokens for step in profile.decode], [step.tokens for step in profile.prefill]


def test_series_double_up_to_the_most() -> None:
    machine = Machine(lambda tokens, _: tokens / 1e4)
    assert sizes(machine.measure()) == ([1, 2, 4, 8, 16, 32, 64], [16, 32, 64, 128, 256, 512])
    odd = Limits(max_model_len=8192, max_num_seqs=48, num_blocks=10_000, block_size=BLOCK)
    assert sizes(machine.measure(odd, max_tokens=100)) == ([1, 2, 4, 8, 16, 32, 48], [16, 32, 64, 100])


def test_shortest_of_several_counts() -> None:
    slow_once = iter([0.5])
    machine = Machine(lambda tokens, _: tokens / 1e4 + next(slow_once, 0.0))
    assert machine.measure().prefill[0].seconds == pytest.approx(16 / 1e4)


def test_rows_are_what_an_engine_could_have_scheduled() -> None:
    machine = Machine(lambda tokens, _: tokens / 1e5)
    machine.measure(max_tokens=2048, longest_s=None)
    for batch in machine.batches:
        blocks = [block for row in batch.rows for block in row.sequence.block_table]
        assert len(blocks) == len(set(blocks))
        for row in batch.rows:
            sequence = row.sequence
            assert sequence.num_computed + row.num_tokens == len(sequence.tokens)
            assert len(sequence.tokens) <= len(sequence.block_table) * BLOCK
            assert row.samples
    largest = max(machine.batches, key=lambda batch: sum(row.num_tokens for row in batch.rows))
    assert [row.num_tokens for row in largest.rows] == [512] * 4


def test_no_step_samples_more_rows_than_sequences_run() -> None:
    """A runner has room for the tokens of so many."""
    machine = Machine(lambda tokens, _: tokens / 1e5)
    few = Limits(max_model_len=8192, max_num_seqs=2, num_blocks=10_000, block_size=BLOCK)
    machine.measure(few, max_tokens=4096, longest_s=None)
    assert max(len(batch.rows) for batch in machine.batches) == 8
    assert max(len(batch.sampling) for batch in machine.batches) == 2


def test_decode_reads_pages_that_were_written() -> None:
    machine = Machine(lambda tokens, _: tokens / 1e4)
    machine.measure()
    (copying,) = [batch for batch in machine.batches if batch.copies]
    decoded = machine.batches[machine.batches.index(copying) :]
    read = {block for batch in decoded for row in batch.rows for block in row.sequence.block_table}
    assert {target for _, target in copying.copies} | {0} >= read


def test_prefill_stops_growing_when_a_step_is_too_long() -> None:
    machine = Machine(lambda tokens, is_decode: 0.01 if is_decode else tokens / 1e3)
    assert sizes(machine.measure())[1] == [16, 32, 64, 128, 256]
    assert sizes(machine.measure(longest_s=None))[1] == [16, 32, 64, 128, 256, 512]


def test_slow_machine_measures_little_but_something() -> None:
    machine = Machine(lambda tokens, _: 2.0)
    assert sizes(machine.measure(longest_s=None)) == ([1, 2], [16, 32])
    assert len(machine.batches) == 5
    slowest = Machine(lambda tokens, _: 100.0)
    assert sizes(slowest.measure()) == ([1], [16])


@pytest.mark.parametrize(
    ("limits", "max_tokens"),
    [
        (Limits(max_model_len=2, max_num_seqs=1, num_blocks=1, block_size=BLOCK), 1),
        (Limits(max_model_len=2, max_num_seqs=64, num_blocks=3, block_size=BLOCK), 512),
        (Limits(max_model_len=100, max_num_seqs=64, num_blocks=9, block_size=BLOCK), 512),
        (Limits(max_model_len=33, max_num_seqs=3, num_blocks=8, block_size=BLOCK), 7),
    ],
)
def test_nothing_beyond_the_limits_is_run(limits: Limits, max_tokens: int) -> None:
    machine = Machine(lambda tokens, _: tokens / 1e4)
    machine.measure(limits, max_tokens)
    assert machine.batches
    for batch in machine.batches:
        assert all(block < limits.num_blocks for row in batch.rows for block in row.sequence.block_table)
        assert all(target < limits.num_blocks for _, target in batch.copies)
        assert all(len(row.sequence.tokens) <= limits.max_model_len for row in batch.rows)
        assert sum(row.num_tokens for row in batch.rows) <= max(max_tokens, limits.max_num_seqs)
