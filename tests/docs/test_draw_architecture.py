"""The picture in docs/ is drawn by the script beside it, and names files that exist."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

from tests.docs.markdown import DOCS

SCRIPT = DOCS / "draw_architecture.py"
PACKAGE = DOCS.parent / "vfastml"


def test_it_draws_a_picture_of_the_size_that_is_kept(tmp_path: Path) -> None:
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=120, env=environment)
    assert png_size(tmp_path / "architecture.png") == png_size(DOCS / "architecture.png")


def test_the_files_that_it_names_exist() -> None:
    named = re.findall(r'"([a-z_/]+\.py)"', SCRIPT.read_text())
    assert {"api_server.py", "server_link.py"} <= set(named)
    for name in named:
        assert list(PACKAGE.rglob(name)), name


def png_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height
