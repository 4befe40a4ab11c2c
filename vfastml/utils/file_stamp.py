"""Whether a file is still what it was when it was read."""

from __future__ import annotations

import os
from pathlib import Path


def file_stamp(path: str | Path) -> tuple[int, ...] | None:
    """Another one when the file has been written or replaced, also behind a link, or when its mode has changed. None:
    it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode
