"""One of the processes that `vfastml serve` runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from vfastml.utils.parent_death import killed_with_this_process


class ChildProcess:
    """Can be started again after it has ended, and is killed when this process is. With `ready_flag` it gets a
    descriptor behind that flag, on which it says that it is ready."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], ready_flag: str | None = None
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._ready_flag = ready_flag
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_line: int | None = None
        self._is_ready = False

    def start(self) -> None:
        """Raises OSError when the machine has no room for it."""
        self._is_ready = False
        self._close_line()
        if self._ready_flag is None:
            self._process = self._started(self._command)
            return
        self._ready_line, theirs = os.pipe()
        os.set_blocking(self._ready_line, False)
        try:
            self._process = self._started([*self._command, self._ready_flag, str(theirs)], theirs)
        finally:
            os.close(theirs)

    @property
    def status(self) -> int | None:
        """None while it runs; that of a signal as shells write it."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        return status if status >= 0 else 128 - status

    @property
    def is_ready(self) -> bool:
        """Whether it has said so since it was started."""
        if not self._is_ready and self._ready_line is not None:
            try:
                self._is_ready = bool(os.read(self._ready_line, 1))
            except BlockingIOError:
                return False
        return self._is_ready

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Makes it end, and waits for that."""
        self._close_line()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _started(self, command: Sequence[str], *descriptors: int) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C reaches this process alone, which passes it on once.
        return subprocess.Popen(
            command,
            env=self._environment,
            process_group=0,
            pass_fds=descriptors,
            preexec_fn=killed_with_this_process(),
        )

    def _close_line(self) -> None:
        if self._ready_line is not None:
            os.close(self._ready_line)
            self._ready_line = None


def described(status: int) -> str:
    """An exit status for a log line, with what it may mean where that is not plain."""
    if status == 128 + signal.SIGKILL:
        return f"status {status} (killed, as by the system when memory runs out)"
    return f"status {status}"
