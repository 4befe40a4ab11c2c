"""A step whose tokens are on their way: the device computes it while the next one is made ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch


class InFlight(Protocol):
    """What a device is computing."""

    def result(self) -> list[list[SampledToken]]:
        """Waits for it. For each row that samples, in order: a token for the sequence and one for each of its forks,
        or a beam's candidates."""


Launch = Callable[[ScheduledBatch], InFlight]
"""Starts a step and returns before it has ended. Its rows may continue with tokens of the step launched before it,
which nobody knows yet (`Sequence.num_pending`)."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was waited for."""

    sampled: list[list[SampledToken]]

    def result(self) -> list[list[SampledToken]]:
        """See InFlight."""
        return self.sampled


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A batch and what it will have come to."""

    batch: ScheduledBatch
    in_flight: InFlight

    @property
    def is_followed_blindly(self) -> bool:
        """The next step can be made ready before the tokens of this one are known."""
        return bool(self.batch.rows) and all(sequence.runs_ahead for sequence in self.batch.sampling)
