"""A virtual environment of its own for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTALL_S = 300


@dataclass(frozen=True)
class Environment:
    """Its folder, and the working directory of all that runs in it, which holds nothing to import."""

    folder: Path
    cwd: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def run(
        self, program: str, *arguments: object, timeout: float = 60, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """One of its programs, to its end; what it printed is in the answer."""
        command = [str(self.bin / program), *map(str, arguments)]
        options: dict[str, Any] = {"capture_output": True, "text": True, "check": False} | more
        return subprocess.run(command, cwd=self.cwd, env=self.variables(), timeout=timeout, **options)

    def start(self, program: str, *arguments: object, log: Path) -> subprocess.Popen[bytes]:
        """One of its programs, in the background."""
        command = [str(self.bin / program), *map(str, arguments)]
        with log.open("ab") as output:
            return subprocess.Popen(command, cwd=self.cwd, env=self.variables(), stdout=output, stderr=output)

    def variables(self) -> dict[str, str]:
        """Those of the test, without what would let this checkout through."""
        return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def run(*command: object, cwd: Path | None = None, timeout: float = INSTALL_S) -> str:
    """What the command printed. Raises AssertionError with its last words if it fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command[0]} has failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def pip(*arguments: object) -> str:
    """The pip of the tests' own environment, under the user's own index settings."""
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
