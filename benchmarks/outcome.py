"""Where figures go at the end: a terminal, a JSON file, a picture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchmarks.plot import draw
from benchmarks.records import BenchmarkResult
from benchmarks.tables import notes, one_server

DEFAULT_FOLDER = Path("benchmarks") / "results"
"""In the repository, from where the programs are run."""


def publish(result: BenchmarkResult, folder: Path, console: Console) -> None:
    """Print the table and what has to be known with it; write `LABEL-DATE.json` and `.png` into the folder."""
    console.print(one_server(result).rich())
    console.print(f"{result.machine}", highlight=False)
    print_notes(notes(result), console)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{result.label}-{result.date}")
    result.save(folder / f"{stem}.json")
    draw([result], folder / f"{stem}.png")
    console.print(f"written: {folder / stem}.json and .png", highlight=False, soft_wrap=True)


def print_notes(lines: Iterable[str], console: Console) -> None:
    """So that they are not overlooked."""
    for line in lines:
        console.print(Text(line, style="bold red"), soft_wrap=True)
