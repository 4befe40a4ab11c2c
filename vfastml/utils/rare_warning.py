"""Log lines about what others send: they must not be able to fill the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_EVERY_S = 10.0


class RareWarning:
    """Warns of one kind of thing, once in ten seconds; the next line says how many were left out before it."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._quiet_until_s: float | None = None
        self._num_left_out = 0

    def warn(self, message: str, *args: object) -> None:
        """As `Logger.warning`."""
        now_s = self._clock()
        if self._quiet_until_s is not None and now_s < self._quiet_until_s:
            self._num_left_out += 1
            return
        if self._num_left_out:
            message += f" (and {self._num_left_out} times more since the last such line)"
        self._quiet_until_s, self._num_left_out = now_s + _EVERY_S, 0
        self._logger.warning(message, *args)
