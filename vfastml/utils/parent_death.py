"""A child that does not outlive its parent, however the parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def killed_with_this_process() -> Callable[[], None]:
    """A `preexec_fn` for `subprocess`: the child is killed when the thread that starts it ends. Call both on the main
    thread of a process that has no other one. Linux alone can do so; elsewhere the child lives on."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # here: a child between fork and exec should look nothing up
    parent = os.getpid()

    def ask_for_it() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it has ended before we asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_for_it
