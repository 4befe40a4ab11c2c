"""The folder of a model server's socket file: no other user can enter it. Both ends look, as either would otherwise
talk with whoever made the folder."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_SCHEME = "ipc://"
_TOO_OPEN = stat.S_IRWXG | stat.S_IRWXO


class IpcFolderError(ValueError):
    """Others can get in, or it cannot be made. The message is a sentence for the operator."""


def ipc_folder_of(endpoint: str) -> Path | None:
    """None for an endpoint of another kind."""
    return Path(endpoint.removeprefix(_SCHEME)).parent if endpoint.startswith(_SCHEME) else None


def enter_ipc_folder(folder: Path) -> None:
    """Makes it, for this user alone, if it is not there. Raises IpcFolderError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise IpcFolderError(f"cannot make {folder}: {error.strerror}") from error
    check_ipc_folder(folder)


def check_ipc_folder(folder: Path) -> None:
    """Raises IpcFolderError. One that is missing is no trouble: `enter_ipc_folder` makes it."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise IpcFolderError(f"cannot enter {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise IpcFolderError(f"{folder} is a link or no folder: a socket file needs a folder of its own")
    if found.st_uid != os.geteuid():
        raise IpcFolderError(f"{folder} belongs to another user: a socket file needs a folder of its own")
    if found.st_mode & _TOO_OPEN:
        raise IpcFolderError(f"other users can enter {folder}: `chmod 700` it, or choose another place for the socket")
