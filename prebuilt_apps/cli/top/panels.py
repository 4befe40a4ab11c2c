"""The parts of the live picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Sparkline, Static

from prebuilt_apps.cli.top import figures, texts
from prebuilt_apps.cli.top.view import KeyRow, LatencyRow, ServerRow

_TREND_S = 300.0
_MOST_POINTS = 3000
_LEAST_NAME = 10
_PADDING = 2
"""Of each cell of a table, both sides together."""


class Column(NamedTuple):
    """Of a table."""

    head: str
    width: int
    to_the_right: bool = True


class Line(Static):
    """One line of plain text, cut where the terminal ends."""

    def say(self, text: str) -> None:
        """Shows it."""
        self.update(Text(text, no_wrap=True, overflow="ellipsis"))


class Table(DataTable[Text]):
    """Rows that keep their keys, so that the cursor stays where it was put."""

    DEFAULT_CSS = """
    Table:nocolor > .datatable--cursor { text-style: reverse; }
    """

    def __init__(self, id: str, *, has_cursor: bool = True) -> None:
        super().__init__(id=id, cursor_type="row" if has_cursor else "none")
        self._shown: tuple[Column, ...] = ()

    def fill(self, columns: Sequence[Column], rows: Mapping[str, Sequence[str]]) -> None:
        """Shows these rows, by key, in this order."""
        if self._shown != tuple(columns):
            self._shown = tuple(columns)
            self._remake_columns()
        texts_by_key = {key: [_cell(*pair) for pair in zip(columns, cells, strict=True)] for key, cells in rows.items()}
        if [row.key.value for row in self.ordered_rows] == list(rows):
            self._update(texts_by_key)
        else:
            self._refill(texts_by_key)

    def _remake_columns(self) -> None:
        self.clear(columns=True)
        for column in self._shown:
            self.add_column(_cell(column, column.head), width=column.width, key=column.head)

    def _update(self, rows: dict[str, list[Text]]) -> None:
        for key, cells in rows.items():
            for column, cell in zip(self._shown, cells, strict=True):
                self.update_cell(key, column.head, cell)

    def _refill(self, rows: dict[str, list[Text]]) -> None:
        before = [row.key.value for row in self.ordered_rows]
        chosen = before[self.cursor_row] if self.cursor_row < len(before) else None
        self.clear()
        for key, cells in rows.items():
            self.add_row(*cells, key=key)
        if chosen in rows:
            self.move_cursor(row=list(rows).index(chosen))


class ServerTable(Table):
    """A row for each model server."""

    def show(self, rows: Iterable[ServerRow], width: int) -> None:
        """In that many cells of width; what does not fit is reached with the arrows."""
        bar_width = 20 if width >= 120 else 4
        cells = {row.endpoint: texts.server_cells(row, bar_width) for row in rows}
        self.fill(_server_columns(width, bar_width, list(cells.values())), cells)


class Latencies(Static):
    """Quantiles, one line for each kind."""

    def show(self, rows: Sequence[LatencyRow], window_s: float) -> None:
        """Those of the last `window_s` seconds."""
        title = f"LATENCY, last {figures.duration(window_s)}" if window_s else "LATENCY"
        lines = [(title, texts.LATENCY_HEADS), *((row.name, texts.latency_cells(row)) for row in rows)]
        text = "\n".join(f"{name:20}" + "".join(f"{cell:>8}" for cell in cells) for name, cells in lines)
        self.update(Text(text, no_wrap=True, overflow="ellipsis"))


class KeyTable(Table):
    """A row for each API key that was busy; not there without."""

    def show(self, rows: Sequence[KeyRow], width: int) -> None:
        """In that many cells of width."""
        self.display = bool(rows)
        cells = {row.name: texts.key_cells(row) for row in rows}
        most = max(_LEAST_NAME, width - 2 * 6 - 4 * _PADDING)
        name = Column("KEY", min(most, max(3, _widest(list(cells.values()), 0))), to_the_right=False)
        self.fill([name, Column("REQ/S", 6), Column("TOK/S", 6)], cells)


class Trend(Vertical):
    """A number over the last minutes, as bars from zero."""

    def __init__(self, name: str, interval_s: float, id: str) -> None:
        super().__init__(id=id)
        self._title = name
        points = max(2, min(_MOST_POINTS, round(_TREND_S / interval_s)))
        self._span_s = points * interval_s
        self._points = deque([0.0] * points, maxlen=points)

    def compose(self) -> ComposeResult:
        """The name above its bars."""
        yield Line()
        yield Sparkline()

    def add(self, value: float | None) -> None:
        """The newest number; one that is not known counts as nothing."""
        self._points.append(value or 0.0)

    def draw(self) -> None:
        """Shows all that was added."""
        now, most = figures.number(self._points[-1]), figures.number(max(self._points))
        span = figures.duration(self._span_s)
        self.query_one(Line).say(f"{self._title} {now} (most in {span}: {most})")
        # The bars are drawn from the least number on: with a zero among them that is zero.
        self.query_one(Sparkline).data = [0.0, *self._points]


def _server_columns(width: int, bar_width: int, rows: Sequence[Sequence[str]]) -> list[Column]:
    model, state, server = (_widest(rows, place) for place in (0, 1, -1))
    rest = [
        Column("STATE", max(5, min(24, state)), to_the_right=False),
        Column("RUN", 4),
        Column("WAIT", 4),
        Column("KV", bar_width + 5, to_the_right=False),
        Column("TOK/S", 5),
        Column("PREEMPT", 7),
        Column("STEP", 6),
    ]
    taken = sum(column.width + _PADDING for column in rest) + _PADDING
    first = Column("MODEL", max(5, min(model, max(_LEAST_NAME, width - taken))), to_the_right=False)
    return [first, *rest, Column("SERVER", max(6, server), to_the_right=False)]


def _widest(rows: Sequence[Sequence[str]], place: int) -> int:
    return max((len(cells[place]) for cells in rows), default=0)


def _cell(column: Column, text: str) -> Text:
    justify: Any = "right" if column.to_the_right else "left"
    return Text(text, justify=justify, no_wrap=True, overflow="ellipsis")
