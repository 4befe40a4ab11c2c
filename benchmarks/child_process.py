"""A program of somebody else, which must not outlive this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from benchmarks.errors import BenchmarkError
from vfastml.engine.interrupts import interrupts_held

_LOOK_AGAIN_S = 0.2
_PATIENCE_S = 20.0
_LAST_WORDS = 300


class ChildProcess:
    """Runs in a process group of its own, so that Ctrl-C reaches this program alone, which then stops it with all that
    it has started. Its output goes into a file. One that `waits` gets a line on its standard input by `go`, and the end
    of it if nobody is left to say so; others get nothing."""

    def __init__(
        self, name: str, words: Sequence[str], environment: dict[str, str], log: Path, *, waits: bool = False
    ) -> None:
        self._name = name
        self._log = log
        self._is_stopped = False
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    words,
                    env=os.environ | environment,
                    stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
        except OSError as error:
            raise BenchmarkError(f"{name} cannot be started: {error.strerror}.") from error

    def go(self) -> None:
        """What it has waited for. Without effect if it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as waiting:
            waiting.write(b"\n")

    def wait_ready(self, url: str, timeout_s: float) -> float:
        """Seconds until the URL answered 200. Raises BenchmarkError if it ends before, or takes longer."""
        began = time.monotonic()
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while not _answers(client, url):
                if self._process.poll() is not None:
                    raise self._ended("before it was ready")
                if time.monotonic() - began > timeout_s:
                    raise BenchmarkError(f"{self._name} was not ready within {timeout_s:g} s; its log is {self._log}.")
                time.sleep(_LOOK_AGAIN_S)
        return time.monotonic() - began

    def wait_end(self) -> None:
        """Until it ends by itself. Raises BenchmarkError unless that went well."""
        if self._process.wait() != 0:
            raise self._ended("early")

    def wait_status(self, timeout_s: float) -> int | None:
        """The exit status; None if it still runs after that time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> str:
        """The last line of its output that is not empty."""
        lines = self._log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
        return last[-_LAST_WORDS:]

    def resident_mb(self) -> float:
        """Of the process and all that it has started; what they share counts for each."""
        total = 0
        for member in self._family():
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
        return total / 1e6

    def stop(self) -> None:
        """Asks it to end; after a while, or at a Ctrl-C meanwhile, ends whatever is left of its family. Can be called
        again."""
        if self._is_stopped:
            return
        family = self._family()
        try:
            self._process.terminate()
            psutil.wait_procs(family, timeout=_PATIENCE_S)
        finally:
            with interrupts_held():
                self._end_all(family)

    def _end_all(self, family: list[psutil.Process]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._is_stopped = True

    def _family(self) -> list[psutil.Process]:
        """Also children that have made groups of their own."""
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return []

    def _ended(self, when: str) -> BenchmarkError:
        status = self._process.returncode
        return BenchmarkError(
            f"{self._name} ended {when}, with status {status}: {self.last_words()} (all of it in {self._log})"
        )


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
