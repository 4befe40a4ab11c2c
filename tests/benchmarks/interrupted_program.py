"""`python -m tests.benchmarks.interrupted_program`: Ctrl-C comes while code from a string runs."""

from __future__ import annotations

import sys

from benchmarks.stopping import until_stopped

_INTERRUPTED = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


def program() -> int:
    exec(_INTERRUPTED)
    return 0


if __name__ == "__main__":
    sys.exit(until_stopped(program))
