"""A model that raises: what an engine's runner computes, and then a fault, as if the last kernel had broken."""

from __future__ import annotations

from collections.abc import Callable

from tests.text_engine.engine_driver import EngineDriver
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.text_engine import Runner

Fault = Callable[[ScheduledBatch], None]
POISON = 99
"""A prompt that begins with this token breaks every step that it is in."""


class FaultyRunner:
    """In the place of `runner`. `num_tokens` has the size of each batch that was tried, `num_failed` counts those that
    raised."""

    def __init__(self, runner: Runner, fault: Fault) -> None:
        self._runner = runner
        self._fault = fault
        self.num_tokens: list[int] = []
        self.num_failed = 0

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        self.num_tokens.append(tokens_of(batch))
        sampled = self._runner.run(batch)
        try:
            self._fault(batch)
        except Exception:
            self.num_failed += 1
            raise
        return sampled

    def parts(self) -> dict[str, tuple[object, str]]:
        return self._runner.parts()


def broken_by(driver: EngineDriver, fault: Fault) -> FaultyRunner:
    """Puts the fault into the driver's engine."""
    faulty = FaultyRunner(driver.engine._runner, fault)
    driver.engine._runner = faulty
    return faulty


def tokens_of(batch: ScheduledBatch) -> int:
    return sum(row.num_tokens for row in batch.rows)


def poison(batch: ScheduledBatch) -> None:
    if any(row.sequence.tokens[0] == POISON for row in batch.rows):
        raise RuntimeError("poisoned")


def late_poison(batch: ScheduledBatch) -> None:
    """Breaks when the poisoned text has some tokens, or one of its choices has."""
    if any(row.sequence.tokens[0] == POISON and row.sequence.num_generated > 4 for row in batch.rows):
        raise RuntimeError("poisoned")


def always(batch: ScheduledBatch) -> None:
    raise RuntimeError("out of cheese")


def no_memory_above(num_tokens: int) -> Fault:
    """For steps of more tokens."""

    def fault(batch: ScheduledBatch) -> None:
        if tokens_of(batch) > num_tokens:
            raise MemoryError

    return fault


def no_memory_for_poison(batch: ScheduledBatch) -> None:
    """However small the step is."""
    if any(row.sequence.tokens[0] == POISON for row in batch.rows):
        raise MemoryError
