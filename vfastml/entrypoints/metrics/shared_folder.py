"""Where several gateway processes keep what they count, so that whichever is asked can tell of all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own: it counts in files of that folder when this is set as it is imported."""

_IN_MEMORY = Path("/dev/shm")
"""Preferred: a disk that fills up would end a process that writes to a mapped file of it."""
_OF_LIVE_PROCESSES = "gauge_livesum_"


class SharedFolder:
    """Of one supervisor, and readable for its user alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def environment(self) -> dict[str, str]:
        """That of a process that is to count here. The folder is made anew if somebody has cleaned up."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        return {**os.environ, VARIABLE: str(self._path)}

    def forget(self, pid: int) -> None:
        """That process has ended: what it had open is gone, what it has counted stays."""
        mark_process_dead(pid, str(self._path))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def shared_folder() -> Iterator[SharedFolder]:
    """A new one, that is removed at the end. Raises OSError when there is no room for it."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="vfastml-metrics-", dir=parent))
    try:
        yield SharedFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def counting_processes(folder: str) -> list[int]:
    """The processes that count there and live."""
    files = Path(folder).glob(f"{_OF_LIVE_PROCESSES}*.db")
    return sorted(int(file.stem.removeprefix(_OF_LIVE_PROCESSES)) for file in files)
