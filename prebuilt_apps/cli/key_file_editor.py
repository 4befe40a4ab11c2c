"""Changes of a key file on disk: one at a time, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from vfastml.entrypoints.keys.key_file import KeyFileError, is_toml, read_keys

_PATIENCE_S = 10.0
_NEW_MODE = 0o600


def change_key_file(path: Path, change: Callable[[str], str], *, may_be_new: bool) -> str:
    """Puts `change(text)` in place of the file's text, "" if there is no file yet, while nobody else changes it, and
    returns it. A new file is its owner's alone; one that was there keeps its owner and mode. Raises KeyFileError, which
    a ValueError of `change` becomes too."""
    if not is_toml(path):
        raise KeyFileError(f"the key file {path} must end in .toml: others are changed by hand")
    if not may_be_new:
        read_keys(path)
    file = Path(os.path.realpath(path))  # of a link, what it leads to is replaced
    if not file.parent.is_dir():  # the lock would make it
        raise KeyFileError(f"the key file {path} cannot be changed: there is no such folder")
    try:
        with FileLock(f"{file}.lock", timeout=_PATIENCE_S, mode=_NEW_MODE):
            is_there = file.exists()
            if is_there:
                read_keys(file)
            text = change(file.read_text(encoding="utf-8") if is_there else "")
            _replace(file, text, file.stat() if is_there else None)
            return text
    except Timeout as error:
        raise KeyFileError(f"the key file {path} is being changed by somebody else") from error
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be changed: {error.strerror}") from error
    except KeyFileError:
        raise
    except ValueError as error:
        raise KeyFileError(f"the key file {path}: {error}") from error


def _replace(file: Path, text: str, before: os.stat_result | None) -> None:
    descriptor, written = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if before is not None:
                with contextlib.suppress(PermissionError):  # a server of another user reads it by its group, perhaps
                    os.fchown(stream.fileno(), before.st_uid, before.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(before.st_mode))
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(written, file)
    except BaseException:
        os.unlink(written)
        raise
