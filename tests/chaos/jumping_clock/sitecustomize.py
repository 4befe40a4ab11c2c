"""A clock that jumps by hours, back and forth, every second; Python loads this at its start where it is on the path."""

from __future__ import annotations

import time

_true_time = time.time
_HOURS = (0, 5, -3, 24, -24, 1)


def _jumping_time() -> float:
    return _true_time() + 3600.0 * _HOURS[int(time.monotonic()) % len(_HOURS)]


time.time = _jumping_time
