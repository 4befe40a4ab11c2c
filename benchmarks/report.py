"""Put results side by side: `python -m benchmarks.report FIRST.json SECOND.json --output compare.png`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.comparison import OFFLINE, side_by_side
from benchmarks.errors import BenchmarkError
from benchmarks.flags import new_parser
from benchmarks.outcome import print_notes
from benchmarks.plot import draw
from benchmarks.records import BenchmarkResult
from benchmarks.tables import notes
from benchmarks.workload_flags import RANDOM

COMPARABLE = {"endpoint": None, "prompts": RANDOM, "input_tokens": None, "output_tokens": None, "range_ratio": None}
"""Settings that have to be alike for a comparison to mean something, and what they are in a file without them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 if a file cannot be used."""
    args = _parser().parse_args(arguments)
    try:
        results = load_all(args.files)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    table = side_by_side(results)
    if args.markdown:
        print(table.markdown())
    else:
        Console().print(table.rich())
    print_notes(remarks(results), Console(stderr=args.markdown))
    if args.output:
        draw(results, args.output)
    return 0


def load_all(paths: Sequence[Path]) -> list[BenchmarkResult]:
    """In that order; labels that come twice get a number. Raises BenchmarkError."""
    results = [BenchmarkResult.load(path) for path in paths]
    labels = [result.label for result in results]
    for position, result in enumerate(results):
        if labels.count(result.label) > 1:
            result.label = f"{result.label} #{labels[: position + 1].count(result.label)}"
    return results


def remarks(results: Sequence[BenchmarkResult]) -> list[str]:
    """What a reader has to know: of each result, and of the comparison."""
    found = [f"{result.label}: {note}" for result in results for note in notes(result)]
    found += [f"{result.label}: started with {flags}" for result in results if (flags := result.server.get("flags"))]
    servers = [result for result in results if result.settings.get("endpoint") != OFFLINE]
    for name, default in COMPARABLE.items():
        values = [result.settings.get(name, default) for result in servers]
        if any(value != values[0] for value in values):
            listed = ", ".join(f"{result.label} {value}" for result, value in zip(servers, values, strict=True))
            found.append(f"Not asked alike, {name}: {listed}")
    if offline := [result.label for result in results if result not in servers]:
        found.append(f"Not over HTTP, batches of one length, only tokens/s compared: {', '.join(offline)}")
    if len({(result.machine.cpu, result.machine.cores) for result in results}) > 1:
        found.append("Measured on different machines.")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.report", "Results side by side: one table, one picture.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="results; ratios are to the first")
    parser.add_argument("--output", type=Path, metavar="FILE.png", help="draw them together")
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
