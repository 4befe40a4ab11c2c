"""The programs under test, as processes that may be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
_JUMPING_CLOCK = Path(__file__).parent / "jumping_clock"
_FULL_DISK = Path("/dev/full")
_GOOD_ENDS = (-signal.SIGKILL, 0)
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    resident_mib: float
    descriptors: int
    threads: int


class ServiceProcess:
    """One program, on the same port each time it is started. Its output is added to one file."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_with = ""
        self._started_s = 0.0
        self._good_ends: tuple[int, ...] = _GOOD_ENDS

    def start(self, *, on_full_disk: bool = False, with_jumping_clock: bool = False) -> None:
        """On a full disk no line of the log can be written; a clock that jumps is `time.time` alone."""
        environment = dict(os.environ)
        if with_jumping_clock:
            environment["PYTHONPATH"] = str(_JUMPING_CLOCK)
        self._started_s = time.monotonic()
        self._good_ends = _GOOD_ENDS
        self._started_with = " on a full disk" * on_full_disk + " with a jumping clock" * with_jumping_clock
        with (_FULL_DISK if on_full_disk else self.log).open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """SIGKILL, also for one that is frozen, and its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        if not self._heeds(signal.SIGTERM):  # the interpreter has not come to the program's first lines
            self._good_ends = (*_GOOD_ENDS, -signal.SIGTERM)
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def broke(self) -> str | None:
        """What is wrong with its last end, if it has ended otherwise than by SIGKILL or a drain."""
        status = None if self._process is None else self._process.poll()
        is_good = status is None or status in self._good_ends
        return None if is_good else f"{self.name}{self._started_with} ended with status {status}"

    async def wait_end(self, timeout_s: float) -> None:
        """Until it has ended. Raises TimeoutError, which says of what."""
        until = time.monotonic() + timeout_s
        while self.is_running():
            if time.monotonic() > until:
                age_s = time.monotonic() - self._started_s
                raise TimeoutError(f"{self.name}{self._started_with}, started {age_s:.1f} s ago")
            await asyncio.sleep(_LOOK_AGAIN_S)

    def footprint(self) -> Footprint | None:
        """Now; None if it does not run."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                found = psutil.Process(self._process.pid)
                with found.oneshot():
                    return Footprint(found.memory_info().rss / (1 << 20), found.num_fds(), found.num_threads())
        return None

    def tracebacks(self) -> int:
        """In all of its log."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def _heeds(self, number: signal.Signals) -> bool:
        """Whether the process has a handler, or else the system ends it."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running():
            self._process.send_signal(number)
