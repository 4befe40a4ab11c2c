"""A process whose output a test reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.e2e.service import wait_until

PATIENCE_S = 120.0
ROOT = Path(__file__).parents[2]


class StartedProcess:
    """`python -m MODULE ARGUMENTS`, killed at the end of the `with` block."""

    def __init__(self, log: Path, module: str, *arguments: object) -> None:
        self._log = log
        command = [sys.executable, "-m", module, *map(str, arguments)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)

    def __enter__(self) -> StartedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str) -> None:
        """Until the output has these words."""

        def said() -> bool:
            assert words in self.output or self.process.poll() is None, self.output
            return words in self.output

        wait_until(said, PATIENCE_S, f"{words!r} in the output")

    def status(self) -> int:
        """Of the ended process."""
        return self.process.wait(PATIENCE_S)


def complaints(output: str) -> list[str]:
    """The lines that are not about ordinary progress."""
    return [line for line in output.splitlines() if " INFO " not in line]
