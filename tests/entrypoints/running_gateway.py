"""A gateway as a process of its own, and a client that streams from it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx

from tests.e2e.service import wait_until

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""For what takes a moment on a machine that has nothing else to do."""
GRACE_S = 50.0
"""A grace time that is told from none, however busy the machine is."""


class Running:
    """A gateway process that has said where it listens."""

    def __init__(self, command: list[str]) -> None:
        # No pipe: nobody reads it, and a process that has said enough would wait for ever.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stderr, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        try:
            found = re.search(r"http://\S+", self.greeting)
            assert found, "it did not greet"
            self.url = found.group()
            wait_until(lambda: livez(self.url), PATIENCE_S, "it answers")
        except AssertionError as error:
            self.process.kill()
            raise AssertionError(f"{error}; it said: {self.stderr()}") from None

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)

    def stderr(self) -> str:
        """All of it: waits for the end of the process."""
        self.process.wait(PATIENCE_S)
        self._stderr.seek(0)
        return self._stderr.read()


def slow_gateway(drain_timeout_s: float, drain_delay_s: float = 0) -> list[str]:
    return [sys.executable, "-m", "tests.entrypoints.slow_gateway", f"{drain_delay_s}+{drain_timeout_s}"]


class Call(threading.Thread):
    """One streamed request in the background."""

    def __init__(self, url: str, words: int) -> None:
        super().__init__()
        self.text = ""
        self._url = url
        self._words = words
        self.start()
        wait_until(lambda: "0 " in self.text, PATIENCE_S, "the first word")

    def run(self) -> None:
        body = {"prompt": "x", "max_tokens": self._words, "stream": True}
        # A connection that is cut is for the test to notice, by the text.
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", f"{self._url}/v1/completions", json=body, timeout=PATIENCE_S) as response,
        ):
            for piece in response.iter_text():
                self.text += piece

    def whole_text(self) -> str:
        self.join(PATIENCE_S)
        return self.text


def livez(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        return False
