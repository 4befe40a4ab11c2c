"""From snapshots to what is shown of them."""

from __future__ import annotations

import pytest

from prebuilt_apps.cli.top.load_page import LoadPage, ServedName, ServerCounts, ServerPage
from prebuilt_apps.cli.top.rates import Snapshot, Window
from prebuilt_apps.cli.top.scrape import START, Series, Values
from prebuilt_apps.cli.top.texts import ORDERS, heading, in_order, server_cells
from prebuilt_apps.cli.top.view import View, view_of

M = (ServedName("m"),)
N = (ServedName("n"),)


def view(*looks: tuple[float, Values, tuple[ServerPage, ...]]) -> View:
    window = Window(60)
    for at, values, servers in looks:
        window.add(Snapshot(at, 1000.0 + at, values, LoadPage(servers)))
    return view_of("http://a:1", window)


def server(endpoint: str = "a", state: str = "live", models: tuple[ServedName, ...] = M, **counts: int) -> ServerPage:
    return ServerPage(endpoint, state, "ready", elapsed_s=1.0, models=models, load=ServerCounts(**counts))


def test_totals() -> None:
    def looked(stops: float, lengths: float, hits: int) -> tuple[Values, tuple[ServerPage, ...]]:
        values = {
            Series.of("request_success_total", finished_reason="stop"): stops,
            Series.of("request_success_total", finished_reason="length"): lengths,
            Series.of("request_failures_total", kind="ServerLostError"): stops,
            # The caller's own doing.
            Series.of("request_failures_total", kind="RequestCancelledError"): 7 * stops,
            Series.of("admission_rejections_total", reason="queue_full"): 3 * stops,
            Series("held_requests"): 4.0,
        }
        counts = {"prefix_hit_tokens": hits, "prefix_query_tokens": 2 * hits, "generated_tokens": 10 * hits}
        return values, (server(running=3, waiting=2, **counts), server("b", running=1, **counts))

    totals = view((0, *looked(0, 0, 0)), (2, *looked(4, 6, 8))).totals
    assert (totals.running, totals.waiting, totals.held) == (4, 2, 4)
    assert (totals.requests_per_s, totals.errors_per_s, totals.refusals_per_s) == (5, 2, 6)
    assert (totals.generated_per_s, totals.prefix_hit_share) == (80, 0.5)


def test_before_there_is_a_second_look() -> None:
    shown = view((0, {}, (server(),)))
    assert shown.totals.requests_per_s is None
    assert shown.totals.errors_per_s is None
    assert shown.totals.prefix_hit_share is None
    assert shown.servers[0].generated_per_s is None
    assert {row.p50 for row in shown.latencies} == {None}
    assert shown.keys == ()


def test_latencies_are_of_all_servers_together() -> None:
    def buckets(*counts: tuple[str, str, float]) -> Values:
        return {Series.of("e2e_request_latency_seconds_bucket", engine=engine, le=le): n for engine, le, n in counts}

    before = buckets(("a", "1.0", 100), ("a", "2.0", 100), ("a", "+Inf", 100))
    after = buckets(
        ("a", "1.0", 110), ("a", "2.0", 110), ("a", "+Inf", 110), ("b", "1.0", 0), ("b", "2.0", 10), ("b", "+Inf", 10)
    )
    [row] = [row for row in view((0, before, ()), (1, after, ())).latencies if row.name == "whole request"]
    assert (row.p50, row.p90) == (1.0, 1.8)


def test_a_latency_lies_above_the_buckets_that_nothing_fell_into() -> None:
    def buckets(count: float) -> Values:
        bounds = {"0.5": 0.0, "0.75": count, "1.0": count, "+Inf": count}
        return {Series.of("time_to_first_token_seconds_bucket", le=le): value for le, value in bounds.items()}

    row = view((0, buckets(0), ()), (1, buckets(4), ())).latencies[0]
    assert (row.name, row.p50) == ("time to first token", 0.625)


def test_keys_that_were_busy() -> None:
    def counts(ann: float, bob: float) -> Values:
        pairs = (("ann", ann), ("bob", bob), ("eve", 5.0))
        names = ("key_requests_total", "key_generation_tokens_total")
        return {Series.of(name, key=key): value * 10 ** names.index(name) for key, value in pairs for name in names}

    keys = view((0, counts(0, 0), ()), (2, counts(2, 8), ())).keys
    assert [(row.name, row.requests_per_s, row.tokens_per_s) for row in keys] == [("bob", 4, 40), ("ann", 1, 10)]


def test_version_and_age() -> None:
    shown = view((5, {Series.of("build_info", version="1.2"): 1, Series(START): 405.0}, (server(),)))
    assert (shown.version, shown.up_s) == ("1.2", 600)
    assert heading(shown) == "vfastml 1.2 at http://a:1 | ready | up 10m00s"
    assert heading(shown, is_lost=True) == "vfastml 1.2 at http://a:1 | no answer"


@pytest.mark.parametrize(
    ("servers", "state"),
    [
        ([server()], "ready"),
        ([server(), server("b", "lost")], "ready"),
        ([server(), server("b", "lost", N)], "no live server of n"),
        ([server(state="lost")], "no live model server"),
        ([], "no live model server"),
        ([server(state="hung"), ServerPage("b", "loading", "warming up")], "warming up"),
        ([ServerPage("b", "loading", "loading weights", 0.4)], "loading weights 40%"),
    ],
)
def test_whether_it_is_ready(servers: list[ServerPage], state: str) -> None:
    shown = view((0, {}, tuple(servers)))
    assert (shown.ready, shown.state) == (state == "ready", state)


def test_a_server_that_is_not_heard_has_no_figures() -> None:
    shown = view((0, {}, (server(state="lost", running=4),)), (1, {}, (server(state="lost", running=4),)))
    assert server_cells(shown.servers[0], 6) == ("m", "lost", "-", "-", "-", "-", "-", "-", "a")


def test_names_cannot_drive_the_terminal() -> None:
    cells = server_cells(view((0, {}, (server(models=(ServedName("\x1b[31mred\n"),)),))).servers[0], 6)
    assert cells[0] == "\\x1b[31mred"


def test_orders() -> None:
    servers = (
        server("a", models=N, waiting=1, total_blocks=10, free_blocks=9),
        server("b", waiting=3, total_blocks=10, free_blocks=4),
        server("c", "lost", models=(ServedName("o"),)),
    )
    rows = view((0, {}, servers)).servers
    places = {order.name: "".join(row.endpoint for row in in_order(rows, order)) for order in ORDERS}
    assert places == {
        "as configured": "abc",
        "by model": "bac",
        "by tokens/s": "abc",
        "by KV use": "bac",
        "by waiting": "bac",
    }
