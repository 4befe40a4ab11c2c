"""All that one call of the benchmark found out, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.errors import BenchmarkError
from benchmarks.gpu.measurements import Measurement
from benchmarks.stored_result import StoredResult

DONE, FAILED, LATE, NOT_HERE, LEFT_OUT, STOPPED = "done", "FAILED", "LATE", "not here", "left out", "stopped"
"""What became of a part: `not here` is what this machine cannot run, `left out` what there was no time for."""


class PartOutcome(msgspec.Struct, kw_only=True):
    """One part of the benchmark."""

    name: str
    status: str
    seconds: float = 0.0
    budget_s: float = 0.0
    reason: str = ""
    log: str = ""
    """The end of what it printed, where it failed or was late."""


class GpuResult(StoredResult, kw_only=True):
    """One call."""

    format: int = 1
    dry: bool
    """Tiny shapes on a CPU: no figure means anything."""
    settings: dict[str, Any]
    environment: dict[str, str]
    missing: list[str]
    """What the machine lacks, and what to do about each."""
    outcomes: list[PartOutcome]
    measurements: list[Measurement]

    @classmethod
    def load(cls, path: Path) -> GpuResult:
        """Raises BenchmarkError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be read: {error.strerror}.") from error
        except msgspec.DecodeError as error:
            raise BenchmarkError(f"{path} is not a result of benchmarks/gpu.sh: {error}.") from error

    def of(self, **wanted: str) -> list[Measurement]:
        """The measurements with these values: `result.of(model="tiny", case="default")`."""
        return [each for each in self.measurements if all(getattr(each, key) == value for key, value in wanted.items())]

    def median(self, title: str, **wanted: str) -> float | None:
        """Of a figure over these measurements; None if none has it."""
        values = sorted(each.figures[title] for each in self.of(**wanted) if title in each.figures)
        middle = len(values) // 2
        if not values:
            return None
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
