"""How a program ends when it is told to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

INTERRUPTED = 130
"""The exit status of a program that was stopped."""


def until_stopped(program: Callable[[], int]) -> int:
    """The status of `program`, or 130 if Ctrl-C ends it. SIGTERM and SIGHUP are Ctrl-C to it: by default they would end
    this process at once, and leave running what it has started. So is SIGINT, which background jobs may ignore."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, signal.default_int_handler)
        return program()
    except KeyboardInterrupt:
        # Under `python -m`, the interpreter ends by the signal itself if that came while it ran code from a string, as
        # dataclasses do when they are imported. It forgets that with the next such code.
        exec("")
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
