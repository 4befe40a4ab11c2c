"""A text as a program of its own: examples and snippets, run as they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.service import READY_S, wait_until

ROOT = Path(__file__).parents[2]


class Program:
    """Runs from its construction on, with its output in `log`."""

    def __init__(self, folder: Path, name: str, text: str, *arguments: object, **environment: str) -> None:
        path, self._log = folder / f"{name}.py", folder / f"{name}.log"
        path.write_text(text)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, path, *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, url: str) -> None:
        """Until this gateway can answer there."""

        def is_ready() -> bool:
            assert self._process.poll() is None, self._log.read_text()
            try:
                return httpx.get(f"{url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready, READY_S, "the gateway is ready")

    def end(self) -> str:
        """Stops it as an operator does. It must end well; returns what it said."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        output = self._log.read_text()
        assert status == 0, output
        assert "Traceback" not in output
        return output

    def kill(self) -> None:
        """For the end of a test that failed."""
        self._process.kill()
        self._process.wait(30)
