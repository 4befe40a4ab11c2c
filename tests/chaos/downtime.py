"""When something was not well, so that what went wrong just then is nobody's fault."""

from __future__ import annotations

import time


class Downtime:
    """Spans of time, the last of which may go on."""

    def __init__(self) -> None:
        self._is_down = False
        self._last_end = float("-inf")

    def begin(self) -> None:
        """It is down from now on."""
        self._is_down = True

    def end(self) -> None:
        """It is well from now on, if it was down at all."""
        if self._is_down:
            self._is_down, self._last_end = False, time.monotonic()

    def touches(self, since: float) -> bool:
        """Whether it was down at any time since then, in monotonic seconds."""
        return self._is_down or self._last_end >= since
