"""Counters of two snapshots, and of many, as rates."""

from __future__ import annotations

from typing import Any

import pytest

from prebuilt_apps.cli.top.load_page import LoadPage, ServedName, ServerCounts, ServerPage
from prebuilt_apps.cli.top.rates import Snapshot, Window, step_between
from prebuilt_apps.cli.top.scrape import Series, Values

TOKENS = "load:generated_tokens"


def server(generated: int, elapsed_s: float, state: str = "live", endpoint: str = "tcp://a:1") -> ServerPage:
    counts = ServerCounts(generated_tokens=generated)
    return ServerPage(endpoint, state, elapsed_s=elapsed_s, load=counts, models=(ServedName("m"),))


def snapshot(at: float, *servers: ServerPage, **values: float) -> Snapshot:
    return Snapshot(at, 1e9 + at, {Series(name): value for name, value in values.items()}, LoadPage(servers))


def labelled(at: float, values: Values) -> Snapshot:
    return Snapshot(at, 1e9 + at, values, LoadPage(()))


def window_of(*snapshots: Snapshot, span_s: float = 60.0) -> Window:
    window = Window(span_s)
    for each in snapshots:
        window.add(each)
    return window


def test_what_counters_grew_by() -> None:
    step = step_between(snapshot(1, a_total=5, b_total=7, gauge=1), snapshot(3, a_total=9, b_total=7, gauge=4))
    assert (step.began, step.ended, step.increases) == (1, 3, {"a_total": {Series("a_total"): 4}})


def test_a_restarted_gateway_counts_from_nothing() -> None:
    assert step_between(snapshot(0, a_total=900), snapshot(1, a_total=3)).increases == {
        "a_total": {Series("a_total"): 3}
    }


def test_a_new_series_counts_from_nothing_and_a_lost_one_not_at_all() -> None:
    assert step_between(snapshot(0, a_total=900), snapshot(1, b_total=3)).increases == {
        "b_total": {Series("b_total"): 3}
    }


def test_each_process_is_compared_with_itself() -> None:
    one, other = Series.of("a_total", engine="1"), Series.of("a_total", engine="2")
    window = window_of(labelled(0, {one: 100, other: 10}), labelled(2, {one: 4, other: 16}))
    assert window.increase("a_total") == 10
    assert window.per_second("a_total") == 5
    assert window.per_second("a_total", engine="2") == 3
    assert window.increases_by("engine", "a_total") == {"1": 4, "2": 6}


def test_nothing_to_compare_with() -> None:
    window = window_of(snapshot(0, a_total=5))
    assert window.per_second("a_total") is None
    assert window.seconds() == 0


def test_the_window_moves_on() -> None:
    window = window_of(*(snapshot(at, a_total=at * at) for at in range(11)), span_s=5)
    assert window.seconds() == 5
    assert window.increase("a_total") == 10 * 10 - 5 * 5
    assert window.per_second("a_total", last_s=2) == (10 * 10 - 8 * 8) / 2


def test_time_without_an_answer_counts() -> None:
    window = window_of(snapshot(0, a_total=0), snapshot(30, a_total=60))
    assert window.per_second("a_total", last_s=5) == 2


@pytest.mark.parametrize(
    ("before", "after", "increase"),
    [
        (server(100, 10), server(150, 11), 50),
        (server(100, 10, "draining"), server(150, 11, "hung"), 50),
        # Another process, which has already made more than the one before.
        (server(100, 10), server(150, 0.5), 0),
        # A connection that was lost told zeros; the process behind it is the old one.
        (server(0, 0, "lost"), server(150, 11), 0),
        (server(150, 11), server(0, 0, "lost"), 0),
        (server(0, 0, "loading"), server(7, 3), 0),
        (server(100, 10, endpoint="tcp://b:1"), server(150, 11), 0),
    ],
)
def test_model_servers(before: ServerPage, after: ServerPage, increase: float) -> None:
    window = window_of(snapshot(0, before), snapshot(1, after))
    assert window.increase(TOKENS) == increase


def test_model_servers_add_up() -> None:
    others: dict[str, Any] = {"endpoint": "tcp://b:2"}
    window = window_of(
        snapshot(0, server(0, 1), server(500, 1, **others)), snapshot(2, server(20, 3), server(600, 3, **others))
    )
    assert window.per_second(TOKENS) == 60
    assert window.per_second(TOKENS, endpoint="tcp://a:1") == 10
