"""Until when the answers to a caller are worth anything: who lets callers in says it, and dispatching keeps to it."""

from __future__ import annotations

import time
from contextvars import ContextVar

DEADLINE: ContextVar[float | None] = ContextVar("vfastml.deadline", default=None)
"""The `time.monotonic()` at which requests of this task, and of those that it starts, have failed; None: never."""


def time_left_s(own_s: float | None) -> float | None:
    """Seconds that are left for a request which asks for `own_s`: that, or what its caller has, whichever is less.
    None: as many as it needs; 0 or less: it is too late."""
    deadline = DEADLINE.get()
    if deadline is None:
        return own_s
    callers_s = deadline - time.monotonic()
    return callers_s if own_s is None else min(own_s, callers_s)
