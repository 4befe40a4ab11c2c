"""What every program leaves behind, whatever it measured."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.machine import Machine


class StoredResult(msgspec.Struct, kw_only=True):
    """One call of a program."""

    date: str
    command: list[str]
    machine: Machine

    def save(self, path: Path) -> None:
        """As JSON; folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
