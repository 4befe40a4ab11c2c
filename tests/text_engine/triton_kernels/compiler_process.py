"""Compiles kernels in a process of its own: this one may have the interpreter in the compiler's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def compiled_by(module: str, folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """What the module beside this one prints, an object a line. `folder` is the compiler's cache."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", f"tests.text_engine.triton_kernels.{module}", *map(str, arguments)],
        env={**environment, "TRITON_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]
