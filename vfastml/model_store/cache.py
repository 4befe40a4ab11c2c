"""The folder in which prepared models are kept, and the rule that each is built once, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vfastml.model_store.errors import ModelStoreError
from vfastml.model_store.progress import Progress, ignore

_MODELS = "models-v1"
"""Renamed when a conversion changes, so that folders made the old way are not used."""

_PROFILES = "profiles-v1"

_CACHE_IS_AT_FAULT = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def cache_root() -> Path:
    """VFASTML_CACHE, else XDG_CACHE_HOME/vfastml, else ~/.cache/vfastml. Need not exist."""
    if chosen := os.environ.get("VFASTML_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vfastml"


def folder_of(name: str) -> Path:
    """Where the model of that name is, once it has been built."""
    return cache_root() / _MODELS / name


def profiles_folder() -> Path | None:
    """Where measurements of models are kept, beside the models; None for a user without a home."""
    try:
        return cache_root() / _PROFILES
    except RuntimeError:
        return None


def build_once(name: str, build: Callable[[Path], None], progress: Progress = ignore) -> Path:
    """The finished folder of that name. If there is none, `build` fills an empty one, which is then renamed into place.

    Only one process builds a name at a time, the others wait for it. A build that fails or is killed leaves no folder
    of that name. Raises ModelStoreError when the cache cannot be written, and what `build` raises.
    """
    folder = folder_of(name)
    with _clear_errors():
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder, progress):
                if not folder.is_dir():
                    _build(folder, build)
    return folder


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    # The kernel drops the lock of a killed process, so no lock is ever stale.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that prepares the model", None)
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    # A name of its own: a download that outlives its killed parent may still be writing to the leftover.
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        build(partial)
        _sync_tree(partial)
        partial.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CACHE_IS_AT_FAULT:
            raise
        raise ModelStoreError(
            f"The model cache {cache_root()} cannot be written ({os.strerror(error.errno)}): "
            "free some space there, or set VFASTML_CACHE to a folder that can be written."
        ) from error
