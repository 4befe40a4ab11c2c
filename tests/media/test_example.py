"""The example server, in a process of its own, with an image and with a bomb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service import free_port
from tests.media.test_image import BOMBS, image_bytes

EXAMPLE = Path(__file__).parents[2] / "examples" / "image_colours.py"


@pytest.mark.rule("S8")
def test_it_answers_and_refuses(tmp_path: Path) -> None:
    port = str(free_port())
    (tmp_path / "image").write_bytes(image_bytes("PNG"))
    (tmp_path / "bomb").write_bytes(BOMBS["65k x 65k header"])

    def ask(name: str) -> str:
        command = [sys.executable, EXAMPLE, "--port", port, "--images", tmp_path / name]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip()

    with subprocess.Popen([sys.executable, EXAMPLE, "--port", port]) as server:
        try:
            assert ask("image") == "[[200, 30, 40]]"
            assert "The image must have sides" in ask("bomb")
            assert ask("image") == "[[200, 30, 40]]"
            assert server.poll() is None
        finally:
            server.kill()
