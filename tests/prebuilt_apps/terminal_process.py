"""A process at a terminal of its own, typed at by a test."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
from types import TracebackType

from tests.e2e.service import wait_until
from tests.models_servers.started_process import PATIENCE_S, ROOT

CTRL_C = "\x03"
CTRL_D = "\x04"


class TerminalProcess:
    """Killed at the end of the `with` block."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
            # The terminal becomes the session's: that is what makes Ctrl-C a signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.output = ""

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._master)

    def type(self, text: str) -> int:
        """Types it, and returns where the output was then."""
        self._read()
        os.write(self._master, text.encode())
        return len(self.output)

    def wait_for(self, words: str, since: int = 0) -> str:
        """Until the output has these words after that place; returns what is between."""

        def said() -> bool:
            self._read()
            return words in self.output[since:]

        wait_until(said, PATIENCE_S, f"{words!r} in {self.output!r}")
        return self.output[since : self.output.index(words, since)]

    def status(self) -> int:
        """Of the ended process."""
        wait_until(lambda: self._read() or self.process.poll() is not None, PATIENCE_S, f"an end: {self.output!r}")
        return self.process.wait()

    def _read(self) -> None:
        while select.select([self._master], [], [], 0.02)[0]:
            try:
                self.output += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # the other side has closed
                return
