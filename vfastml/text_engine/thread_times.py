"""Whether this process got the cores that it wanted: beside other work, the machine looks slower than it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Nanoseconds of all threads of this process together, since each began."""

    ran: int
    """On a core."""
    waited: int
    """Ready to run, with no core free; by the scheduler's own account."""

    @classmethod
    def now(cls) -> ThreadTimes:
        """Zeros where the system does not tell."""
        ran = waited = 0
        for path in _TASKS.glob("*/schedstat"):
            try:
                one_ran, one_waited, _ = path.read_text().split()
            except (OSError, ValueError):  # a thread that has just ended
                continue
            ran, waited = ran + int(one_ran), waited + int(one_waited)
        return cls(ran, waited)

    def waited_share_since(self, before: ThreadTimes) -> float:
        """Of the time for which threads had work to do, the share that they waited for a core."""
        ran, waited = max(0, self.ran - before.ran), max(0, self.waited - before.waited)
        return waited / (ran + waited) if waited else 0.0
