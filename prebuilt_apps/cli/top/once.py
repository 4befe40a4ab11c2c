"""One picture of a service on stdout, for scripts, logs and pipes."""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prebuilt_apps.cli.top import texts
from prebuilt_apps.cli.top.figures import duration
from prebuilt_apps.cli.top.view import View

_BAR_WIDTH = 10
_PIPE_WIDTH = 140
"""Of a line where there is no terminal that says."""
_LEFT = ("MODEL", "STATE", "KV", "SERVER", "KEY")


def print_json(view: View) -> None:
    """For machines: all figures, on one line."""
    sys.stdout.write(msgspec.json.encode(view).decode() + "\n")


def print_picture(view: View) -> None:
    """For people."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False)
    for line in (texts.heading(view), *texts.total_lines(view.totals)):
        console.print(Text(line))
    for table in _tables(view, ascii_only=console.encoding.lower() not in ("utf-8", "utf8")):
        console.print()
        console.print(table)


def _tables(view: View, *, ascii_only: bool) -> list[Table]:
    servers = [texts.server_cells(row, _BAR_WIDTH, ascii_only=ascii_only) for row in view.servers]
    latencies = [(row.name, *texts.latency_cells(row)) for row in view.latencies]
    tables = [
        _table(texts.SERVER_HEADS, servers),
        _table((f"LAST {duration(view.window_s)}", *texts.LATENCY_HEADS), latencies),
    ]
    if view.keys:
        tables.append(_table(texts.KEY_HEADS, [texts.key_cells(row) for row in view.keys]))
    return tables


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style=None)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 or head in _LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
