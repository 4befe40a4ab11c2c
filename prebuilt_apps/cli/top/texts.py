"""A View in words: lines, heads and cells, the same for both ways of drawing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prebuilt_apps.cli.terminal import shown
from prebuilt_apps.cli.top import figures
from prebuilt_apps.cli.top.view import KeyRow, LatencyRow, ServerRow, Totals, View

SERVER_HEADS = ("MODEL", "STATE", "RUN", "WAIT", "KV", "TOK/S", "PREEMPT", "STEP", "SERVER")
LATENCY_HEADS = ("p50", "p90", "p99")
KEY_HEADS = ("KEY", "REQ/S", "TOK/S")

Place = Callable[[ServerRow], float | str]


class Order(NamedTuple):
    """One way to sort model servers."""

    name: str
    place: Place | None
    """None: as they come."""


ORDERS = (
    Order("as configured", None),
    Order("by model", lambda row: row.model),
    Order("by tokens/s", lambda row: -(row.generated_per_s or 0.0)),
    Order("by KV use", lambda row: -(row.kv_share or 0.0)),
    Order("by waiting", lambda row: -(row.waiting or 0)),
)


def in_order(rows: tuple[ServerRow, ...], order: Order) -> list[ServerRow]:
    """Sorted; equal ones as they come."""
    return list(rows) if order.place is None else sorted(rows, key=order.place)


def heading(view: View, *, is_lost: bool = False) -> str:
    """What service that is, and whether it is ready; `is_lost`: it does not answer now."""
    version = f" {view.version}" if view.version else ""
    up = f" | up {figures.duration(view.up_s)}" if view.up_s is not None else ""
    ready = "ready" if view.ready else f"not ready: {view.state}"
    return one_line(f"vfastml{version} at {view.url} | " + ("no answer" if is_lost else ready + up))


def total_lines(totals: Totals) -> tuple[str, ...]:
    """Of the whole service: what there is to do, what becomes of it, and how much that is."""
    counts = (("running", totals.running), ("waiting", totals.waiting), ("held", totals.held))
    answers = (("ok", totals.requests_per_s), ("errors", totals.errors_per_s), ("refused", totals.refusals_per_s))
    tokens = (("generated", totals.generated_per_s), ("prompt", totals.prompt_per_s))
    hits = f"prefix hits {figures.share(totals.prefix_hit_share)}"
    return (
        "  ".join(("REQUESTS", *(f"{name} {figures.number(value)}" for name, value in counts))),
        "  ".join(("ANSWERS ", *(f"{name} {_rate(value)}" for name, value in answers))),
        "  ".join(("TOKENS  ", *(f"{name} {_rate(value)}" for name, value in tokens), hits)),
    )


def server_cells(row: ServerRow, bar_width: int, *, ascii_only: bool = False) -> tuple[str, ...]:
    """As SERVER_HEADS."""
    return (
        one_line(row.model) or figures.NONE,
        one_line(row.state),
        figures.number(row.running),
        figures.number(row.waiting),
        figures.bar(row.kv_share, bar_width, ascii_only=ascii_only),
        figures.number(row.generated_per_s),
        figures.number(row.preemptions),
        figures.seconds(row.step_age_s),
        one_line(row.endpoint),
    )


def latency_cells(row: LatencyRow) -> tuple[str, ...]:
    """As LATENCY_HEADS."""
    return tuple(figures.seconds(value) for value in (row.p50, row.p90, row.p99))


def key_cells(row: KeyRow) -> tuple[str, ...]:
    """As KEY_HEADS."""
    return one_line(row.name), figures.number(row.requests_per_s), figures.number(row.tokens_per_s)


def one_line(text: str) -> str:
    """What a service says, so that it cannot drive the terminal."""
    return shown(" ".join(text.split()))


def _rate(value: float | None) -> str:
    return figures.NONE if value is None else f"{figures.number(value)}/s"
