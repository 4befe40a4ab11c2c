"""A step that raised, computed again in parts: who made it raise, and what do the others get?"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow

Sampled = list[list[SampledToken]]
"""For each row that samples, in order: a token for the sequence and one for each of its forks, or a beam's
candidates."""
Result = TypeVar("Result")
Run = Callable[[ScheduledBatch], Sampled]


@dataclass(slots=True)
class RetriedStep:
    """What the rows came to, in their order."""

    rows: list[ScheduledRow] = field(default_factory=list)
    """Those that were computed."""
    sampled: Sampled = field(default_factory=list)
    """Theirs."""
    broken: list[tuple[ScheduledRow, Exception]] = field(default_factory=list)
    """Those that raise even when they are computed alone."""


def attempt(run: Callable[[ScheduledBatch], Result], batch: ScheduledBatch) -> Result | Exception:
    """What `run` returns, or what it raised, without the tensors that the error would keep in memory."""
    try:
        return run(batch)
    except Exception as error:
        _forget_locals(error)
        return error


def retry_in_halves(run: Run, rows: Sequence[ScheduledRow]) -> RetriedStep:
    """Computes rows that have raised together. A part that raises is split again, so that each row which is at no
    fault gets what it would have got without the others; a row that raises alone had its second chance. The rows must
    need no block copies."""
    retried = RetriedStep()
    parts = _halves(rows)
    while parts:
        part = parts.pop()
        outcome = attempt(run, ScheduledBatch(tuple(part), ()))
        if not isinstance(outcome, Exception):
            retried.rows += part
            retried.sampled += outcome
        elif len(part) == 1:
            retried.broken.append((part[0], outcome))
        else:
            parts += _halves(part)
    return retried


def _halves(rows: Sequence[ScheduledRow]) -> list[Sequence[ScheduledRow]]:
    """The first one is the last of the list. One row is one half, none is none."""
    middle = len(rows) // 2
    return [half for half in (rows[middle:], rows[:middle]) if half]


def _forget_locals(error: BaseException) -> None:
    """The traceback stays good for the log."""
    reason: BaseException | None = error
    while reason is not None:
        traceback.clear_frames(reason.__traceback__)
        reason = reason.__context__
