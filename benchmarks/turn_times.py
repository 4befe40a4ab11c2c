"""How long a comparison will take yet."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence


class TurnTimes:
    """Learns from the turns so far. A server that has had none is taken to be like the others."""

    def __init__(self, labels: Sequence[str], repeats: int) -> None:
        self._turns_left = dict.fromkeys(labels, repeats)
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def took(self, label: str, seconds: float, *, is_out: bool) -> None:
        """One turn has ended; with `is_out`, so have all of that server."""
        self._turns_left[label] = 0 if is_out else self._turns_left[label] - 1
        self._seconds[label].append(seconds)

    def left_s(self) -> float:
        """Expected."""
        typical = statistics.fmean(second for seconds in self._seconds.values() for second in seconds)
        return sum(
            turns * statistics.fmean(self._seconds.get(label, [typical])) for label, turns in self._turns_left.items()
        )

    def left(self) -> str:
        """For people."""
        if not any(self._turns_left.values()):
            return "done"
        minutes = self.left_s() / 60
        return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
