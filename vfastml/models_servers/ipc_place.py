"""The socket file of a model server, in a folder that no other user can enter."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vfastml.engine.addresses import MAX_IPC_PATH_BYTES
from vfastml.engine.ipc_folder import enter_ipc_folder


class IpcPlaceError(Exception):
    """No socket can be there. The message is a sentence for the operator."""


class IpcPlace:
    """`path` is where gateways connect. libzmq itself would take the place of any file, and of another server's socket
    without a word; so there is a lock beside it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lock = FileLock(f"{self.path}.lock", mode=0o600)

    def take(self) -> None:
        """Until `leave`, or the end of the process. Makes the folder if there is none, and removes the socket of a
        server that has died. Raises IpcPlaceError and IpcFolderError."""
        if len(os.fsencode(self.path)) > MAX_IPC_PATH_BYTES:
            raise IpcPlaceError(
                f"--rpc-ipc {self.path} is longer than {MAX_IPC_PATH_BYTES} bytes: choose a shorter one"
            )
        try:
            enter_ipc_folder(Path(self.path).parent)
            self._lock.acquire(timeout=0)
            self._remove_stale()
        except Timeout:
            raise IpcPlaceError(
                f"another model server listens on {self.path}: stop it, or choose another --rpc-ipc"
            ) from None
        except OSError as error:
            raise IpcPlaceError(f"cannot listen on {self.path}: {error.strerror}") from error

    def leave(self) -> None:
        """For the next one."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._remove_stale()
            self._lock.release()

    def _remove_stale(self) -> None:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise IpcPlaceError(f"{self.path} is there already, and is no socket: choose another --rpc-ipc")
        os.unlink(self.path)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What is made within is for this user alone. It holds for all threads: none should make files meanwhile."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
