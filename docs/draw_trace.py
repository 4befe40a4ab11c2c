"""Draws trace.png: `python docs/draw_trace.py [LINES [PICTURE]]`. LINES is what a gateway has written with its flag
`--trace-file`, by default trace.jsonl; of several traces the one with the most spans is drawn."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
INK, SOFT, LINE, WHITE = "#1f2933", "#5f6c7b", "#d5dbe1", "#ffffff"
COLORS = {
    "queue": "#b8c2cc",
    "prefill": "#2563a8",
    "decode": "#8fb3d9",
    "preempted": "#c2570c",
}
OTHERS = "#dbe7f3"
EVENTS = {
    "prefilled": ("|", "#0b2f57", 0.0, "a piece of a text computed"),
    "first_token": ("D", "#0f7b4f", 0.0, "first token"),
    "forked": ("^", "#7a3fa0", -0.16, "a beam forked"),
    "dropped": ("x", "#1f2933", 0.16, "a beam dropped"),
}
"""Marker, colour, how far below the middle of the line, and what the legend says."""
ROW_INCHES, WIDTH_INCHES, NAMES_SHARE = 0.42, 12.0, 0.24

Span = dict[str, Any]


@dataclass
class Row:
    """One line of the picture: a span, or several of the same name and choice that follow each other."""

    name: str
    depth: int
    spans: list[Span]


def trace_of(lines: str) -> list[Span]:
    """The spans of the largest trace."""
    traces: defaultdict[str, list[Span]] = defaultdict(list)
    for line in lines.splitlines():
        span = json.loads(line)
        traces[span["trace_id"]].append(span)
    return max(traces.values(), key=len)


def rows_of(spans: list[Span]) -> list[Row]:
    """From the outermost span down, each with its children below it, in the order in which they begin."""
    ids = {span["span_id"] for span in spans}
    children: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span["start_ns"], -span["end_ns"])):
        children[span["parent_id"] if span["parent_id"] in ids else None].append(span)
    return _rows_below(None, 0, children)


def _rows_below(parent: str | None, depth: int, children: dict[str | None, list[Span]]) -> list[Row]:
    rows: dict[str, Row] = {}
    for span in children[parent]:
        index = span["attributes"].get("vfastml.index")
        name = span["name"] if index is None else f"{span['name']}, beam {index}"
        rows.setdefault(name, Row(name, depth, [])).spans.append(span)
    found = []
    for row in rows.values():
        found.append(row)
        for span in row.spans:
            found += _rows_below(span["span_id"], depth + 1, children)
    return found


def draw(spans: list[Span]) -> Figure:
    """The picture."""
    rows = rows_of(spans)
    begin_ns = min(span["start_ns"] for span in spans)
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows) + 1.3), dpi=150, facecolor=WHITE)
    height = figure.get_figheight()
    axes = figure.add_axes((NAMES_SHARE, 0.95 / height, 0.98 - NAMES_SHARE, 1 - 1.1 / height))
    for number, row in enumerate(rows):
        _draw_row(axes, row, number, begin_ns)
    _set_scale(axes, rows)
    _draw_legend(figure, rows)
    return figure


def _draw_row(axes: Axes, row: Row, number: int, begin_ns: int) -> None:
    axes.text(
        -0.31 + 0.018 * row.depth,
        number,
        row.name,
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=9,
        color=INK,
    )
    for span in row.spans:
        start_s, end_s = ((span[key] - begin_ns) / 1e9 for key in ("start_ns", "end_ns"))
        axes.barh(number, end_s - start_s, left=start_s, height=0.62, color=COLORS.get(span["name"], OTHERS), zorder=2)
        for event in span["events"]:
            if event["name"] in EVENTS:
                marker, color, below, _ = EVENTS[event["name"]]
                at_s = (event["at_ns"] - begin_ns) / 1e9
                axes.plot(at_s, number + below, marker, color=color, markersize=5, markeredgewidth=1.4, zorder=3)
    took_s = sum(span["end_ns"] - span["start_ns"] for span in row.spans) / 1e9
    note = f" {took_s:.3f} s" if len(row.spans) == 1 else f" {took_s:.3f} s in {len(row.spans)} spans"
    axes.text((row.spans[-1]["end_ns"] - begin_ns) / 1e9, number, note, va="center", fontsize=8, color=SOFT)


def _set_scale(axes: Axes, rows: list[Row]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    left, right = axes.get_xlim()
    axes.set_xlim(0, right + 0.13 * (right - left))
    axes.set_yticks([])
    axes.set_xlabel("seconds since the request came in", fontsize=9, color=SOFT)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(axis="x", color=LINE, linewidth=0.8, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)


def _draw_legend(figure: Figure, rows: list[Row]) -> None:
    there = {event["name"] for row in rows for span in row.spans for event in span["events"]}
    axes = figure.axes[0]
    for name, (marker, color, _, meaning) in EVENTS.items():
        if name in there:
            axes.plot([], [], marker, color=color, markersize=6, markeredgewidth=1.4, label=meaning)
    if there & set(EVENTS):
        figure.legend(loc="lower center", ncols=len(EVENTS), frameon=False, fontsize=8, labelcolor=SOFT)


def main(arguments: list[str]) -> None:
    lines = Path(arguments[0]) if arguments else HERE / "trace.jsonl"
    picture = Path(arguments[1]) if len(arguments) > 1 else HERE / "trace.png"
    draw(trace_of(lines.read_text())).savefig(picture, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1:])
