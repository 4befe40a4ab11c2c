"""How programs end when they are told to: with 130, whatever they did and however they were started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.benchmarks.interrupted_program"]
IN_THE_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


@pytest.mark.parametrize("started_by", [[], IN_THE_BACKGROUND])
def test_ctrl_c_in_an_import_ends_with_130(started_by: list[str]) -> None:
    run = subprocess.run([*started_by, *PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (run.returncode, run.stderr) == (130, "interrupted\n")
