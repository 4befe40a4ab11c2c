"""How often a process may die, and how long to wait before it is started again."""

from __future__ import annotations

from collections import deque

MOST_DEATHS = 5
WINDOW_S = 60.0


class RestartBudget:
    """Allows fewer than `MOST_DEATHS` within `WINDOW_S`; each of them doubles the pause."""

    def __init__(self, first_pause_s: float = 0.5) -> None:
        self._first_pause_s = first_pause_s
        self._deaths: deque[float] = deque()

    def pause_after_death(self, now_s: float) -> float | None:
        """Seconds until the next start, or None: it has died too often. `now_s` is on any clock that only goes on."""
        self._deaths.append(now_s)
        while now_s - self._deaths[0] > WINDOW_S:
            self._deaths.popleft()
        if len(self._deaths) >= MOST_DEATHS:
            return None
        return float(self._first_pause_s * 2 ** (len(self._deaths) - 1))
