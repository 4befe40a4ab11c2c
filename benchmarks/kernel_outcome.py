"""Where the times of kernels go at the end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.kernel_records import LEGEND, KernelResult, draw, tables


def publish(result: KernelResult, folder: Path) -> None:
    """Print the tables; write `kernels-DATE.json` and `.png` into the folder."""
    console = Console()
    for table in tables(result):
        console.print(table.rich())
    console.print(LEGEND, highlight=False)
    for limits in result.limits:
        console.print(f"{limits}", highlight=False)
    console.print(f"{result.machine}; instructions: {result.level}", highlight=False)
    stem = folder / f"kernels-{result.date}"
    result.save(stem.with_suffix(".json"))
    draw(result, stem.with_suffix(".png"))
    console.print(f"written: {stem}.json and .png", highlight=False, soft_wrap=True)
