"""One of several gateway processes, as its supervisor has it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping, Sequence

from vfastml.entrypoints.supervisor_line import WorkerOrder


class WorkerProcess:
    """Started by `start`; to be waited for by `wait`, even after it was killed."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> WorkerProcess:
        """With this process's environment unless there is another, and with these descriptors, by the same numbers.
        Raises OSError when the machine has no room for it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                # A group of its own: Ctrl-C reaches the supervisor alone, which passes it on once.
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), env=environment, process_group=0, pass_fds=descriptors
                )
            except OSError:
                ours.close()
                raise
        return cls(process, ours)

    async def give(self, order: WorkerOrder) -> None:
        """What it is to serve. One that has ended meanwhile is nothing to say here: `next_event` tells."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._line, order.encode())

    async def next_event(self) -> bytes:
        """What it tells next; empty when it ends."""
        with contextlib.suppress(OSError):
            return await asyncio.get_running_loop().sock_recv(self._line, 1)
        return b""

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit status, once it has one; that of a signal as shells write it."""
        status = await self._process.wait()
        self._line.close()
        return status if status >= 0 else 128 - status
