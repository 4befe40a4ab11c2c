"""A device with a memory of its own, in the place of a model: what it computes for a row depends on every token that is
in the row's blocks at that time, as attention does, and the host learns of it only when it asks."""

from __future__ import annotations

from collections.abc import Callable

from vfastml.text_engine.launched_step import InFlight
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow
from vfastml.text_engine.sequence import Sequence

VOCABULARY = 23
Fault = Callable[[ScheduledBatch], None]


class FakeDevice:
    """A runner, whose `launch` can be given to an engine."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._cells: dict[tuple[int, int], int] = {}
        self._newest: list[int] = []
        """What the step launched last has sampled."""
        self.num_not_fetched = 0
        """Steps whose tokens the host has not asked for."""
        self.most_not_fetched = 0
        self.fault: Fault = lambda batch: None
        """Raises what a step is to raise."""

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        return self.launch(batch).result()

    def parts(self) -> dict[str, tuple[object, str]]:
        return {}

    def launch(self, batch: ScheduledBatch) -> InFlight:
        self.fault(batch)
        for source, target in batch.copies:
            for offset in range(self._block_size):
                if (source, offset) in self._cells:
                    self._cells[target, offset] = self._cells[source, offset]
        # all keys are written before any row attends
        contexts = [self._write(row) for row in batch.rows]
        sampled = [
            self._sampled(row.sequence, context)
            for row, context in zip(batch.rows, contexts, strict=True)
            if row.samples
        ]
        self._newest = [tokens[0] for tokens in sampled]
        self.num_not_fetched += 1
        self.most_not_fetched = max(self.most_not_fetched, self.num_not_fetched)
        return _Unfetched(self, [[SampledToken(token) for token in tokens] for tokens in sampled])

    def _write(self, row: ScheduledRow) -> tuple[int, ...]:
        sequence, end = row.sequence, row.sequence.num_computed + row.num_tokens
        tokens = sequence.tokens[sequence.num_computed : end]
        if end > len(sequence.tokens):
            assert end == len(sequence.tokens) + 1, "only one token can be on its way when a step is made ready"
            tokens.append(self._newest[sequence.pending_row])
        for position, token in zip(range(sequence.num_computed, end), tokens, strict=True):
            self._cells[self._cell(sequence, position)] = token
        return tuple(self._cells[self._cell(sequence, position)] for position in range(end))

    def _cell(self, sequence: Sequence, position: int) -> tuple[int, int]:
        return sequence.block_table[position // self._block_size], position % self._block_size

    def _sampled(self, sequence: Sequence, context: tuple[int, ...]) -> list[int]:
        choices = range(sequence.index, sequence.index + 1 + sequence.forks)
        place = len(context) - sequence.num_prompt_tokens
        return [hash((context, choice if place == 0 else 0)) % VOCABULARY for choice in choices]


class _Unfetched:
    def __init__(self, device: FakeDevice, sampled: list[list[SampledToken]]) -> None:
        self._device = device
        self._sampled = sampled

    def result(self) -> list[list[SampledToken]]:
        self._device.num_not_fetched -= 1
        return self._sampled
