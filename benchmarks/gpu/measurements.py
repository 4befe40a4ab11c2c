"""What parts of the benchmark leave behind, line by line, so that one that is stopped has lost nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec


class Measurement(msgspec.Struct, kw_only=True):
    """One workload, measured once."""

    part: str
    model: str = ""
    """Name of the shape; empty where none is concerned."""
    case: str = ""
    """What is compared with what: `default`, `no graphs`, `generate` and so on."""
    workload: str = ""
    repeat: int = 1
    settings: dict[str, Any] = {}
    """Lengths and the like."""
    figures: dict[str, float] = {}
    """By title, which names the unit."""
    notes: list[str] = []

    def __str__(self) -> str:
        names = ", ".join(filter(None, (self.model, self.case, self.workload)))
        figures = "; ".join(f"{title} {value:.4g}" for title, value in self.figures.items())
        return ": ".join(filter(None, (names, figures or "; ".join(self.notes))))


class MeasurementFile:
    """One JSON object a line; written by one process, read by another."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, measurement: Measurement) -> None:
        """Is on disk at once. JSON has no infinity and nothing that is no number: figures that are become notes."""
        broken = {title: value for title, value in measurement.figures.items() if not math.isfinite(value)}
        if broken:
            figures = {title: value for title, value in measurement.figures.items() if title not in broken}
            notes = [*measurement.notes, *(f"{title}: {value}" for title, value in broken.items())]
            measurement = msgspec.structs.replace(measurement, figures=figures, notes=notes)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(measurement) + b"\n")

    def read(self) -> list[Measurement]:
        """All whole lines so far."""
        if not self._path.exists():
            return []
        *lines, _ = self._path.read_bytes().split(b"\n")
        return [msgspec.json.decode(line, type=Measurement) for line in lines]
