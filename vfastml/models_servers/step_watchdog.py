"""Ends a model server whose step never ends: a process that is gone can be started again, one that hangs cannot."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LONGEST_TICK_S = 1.0
_TICKS_OF_A_STEP = 8
"""At least so many looks while a step may last."""
_STDERR = 2


class StepWatchdog:
    """A thread that looks at the model's thread now and then, from `start` to `stop`. When one step takes longer than
    `max_step_s`, it writes down what every thread does and ends the process with `status`.

    A step that never lets go of the interpreter's lock keeps this thread from looking as well. Then `faulthandler`,
    which needs no lock, writes the same and ends the process, with status 1. Only that one cannot tell a lock that is
    held from a process that is stopped (SIGSTOP, a frozen container) in the middle of a step for as long.
    """

    def __init__(self, max_step_s: float, status: int, on_hung: Callable[[], None] | None = None) -> None:
        self._max_step_s = max_step_s
        self._status = status
        self._on_hung = on_hung or self._end_process
        self._tick_s = min(_LONGEST_TICK_S, max_step_s / _TICKS_OF_A_STEP)
        self._began_s: float | None = None
        self._is_armed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="step-watchdog", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopping.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def step_begins(self) -> None:
        """The model's thread is busy from now on."""
        self._began_s = time.monotonic()
        if not self._is_armed:  # the first step after a while
            self._arm()

    def step_ended(self) -> None:
        """The model's thread is back."""
        self._began_s = None

    def _watch(self) -> None:
        age = StepAge(2 * self._tick_s)
        while not self._stopping.wait(self._tick_s):
            if age.seen(self._began_s, time.monotonic()) > self._max_step_s:
                self._on_hung()
            self._renew()

    def _renew(self) -> None:
        # A step may begin between any two of these lines: it sees that nothing is armed, or is seen below.
        self._is_armed = False
        faulthandler.cancel_dump_traceback_later()
        if self._began_s is not None:
            self._arm()

    def _arm(self) -> None:
        # Not at each step: it is a new thread each time.
        self._is_armed = True
        faulthandler.dump_traceback_later(self._max_step_s + 2 * self._tick_s, exit=True, file=_STDERR)

    def _end_process(self) -> None:
        logger.critical(
            "a step takes longer than %g s (--max-step): exiting with status %d; this is what each thread does",
            self._max_step_s,
            self._status,
        )
        faulthandler.dump_traceback(file=_STDERR)
        os._exit(self._status)


class StepAge:
    """For how long a step has been seen to run. Time that passes unseen, while the process or the whole machine is
    stopped or gets no processor, counts for `longest_gap_s` and no more: the step could not get on in it either."""

    def __init__(self, longest_gap_s: float) -> None:
        self._longest_gap_s = longest_gap_s
        self._began_s: float | None = None
        self._looked_s = 0.0
        self._age_s = 0.0

    def seen(self, began_s: float | None, now_s: float) -> float:
        """Its age in seconds, 0 when there is none; a step is known by when it began."""
        if began_s is None:
            self._began_s = None
            return 0.0
        if began_s != self._began_s:
            self._began_s, self._looked_s, self._age_s = began_s, began_s, 0.0
        self._age_s += min(now_s - self._looked_s, self._longest_gap_s)
        self._looked_s = now_s
        return self._age_s
