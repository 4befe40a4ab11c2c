"""What is shown of a service: everything that both ways of drawing it, and machines, are told."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt_apps.cli.top.load_page import LoadPage, ServerPage
from prebuilt_apps.cli.top.quantiles import quantile
from prebuilt_apps.cli.top.rates import Snapshot, Window
from prebuilt_apps.cli.top.scrape import START, Series, Values
from vfastml.errors import DeadlineExceededError, InternalServerError, ServerLostError

RATE_S = 5.0
"""Rates are of these last seconds: of one alone they would flicker."""

LATENCIES = (
    ("time to first token", "time_to_first_token_seconds"),
    # Not inter_token_latency, which only streams have.
    ("time per token", "request_time_per_output_token_seconds"),
    ("time in queue", "request_queue_time_seconds"),
    ("whole request", "e2e_request_latency_seconds"),
)

_OWN_FAULTS = tuple(error.__name__ for error in (InternalServerError, ServerLostError, DeadlineExceededError))
"""Of the failures: others are the caller's, or refusals, which are counted by themselves."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole service. None: not known yet."""

    running: int
    waiting: int
    held: int
    """Requests that wait in the gateway for a model server."""
    requests_per_s: float | None
    """That were answered in full."""
    errors_per_s: float | None
    """That the service failed."""
    refusals_per_s: float | None
    generated_per_s: float | None
    prompt_per_s: float | None
    prefix_hit_share: float | None
    """Of the prompt tokens that the prefix cache was asked for in the whole window; None: of none."""


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A model server. None: it does not tell."""

    model: str
    endpoint: str
    state: str
    """`ready`, what loading is busy with and how far it is, or why it is of no use."""
    running: int | None
    waiting: int | None
    kv_share: float | None
    generated_per_s: float | None
    preemptions: int | None
    step_age_s: float | None


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Seconds, of the requests that told them in the window."""

    name: str
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """Somebody with an API key."""

    name: str
    requests_per_s: float
    tokens_per_s: float
    """Generated ones, counted as their requests end: both over the whole window."""


@dataclass(frozen=True, slots=True)
class View:
    """One moment of a service."""

    url: str
    version: str | None
    up_s: float | None
    ready: bool
    state: str
    """`ready`, or why not."""
    window_s: float
    """How far back latencies and hits reach."""
    totals: Totals
    servers: tuple[ServerRow, ...]
    latencies: tuple[LatencyRow, ...]
    keys: tuple[KeyRow, ...]


def view_of(url: str, window: Window) -> View:
    """What a window that has a snapshot shows."""
    assert window.last is not None
    last = window.last
    reason = _why_not_ready(last.load)
    return View(
        url=url,
        version=_label_of(last.values, "build_info", "version"),
        up_s=_up_s(last),
        ready=reason is None,
        state=reason or "ready",
        window_s=window.seconds(),
        totals=_totals(window, last),
        servers=tuple(_server_row(window, server) for server in last.load.servers),
        latencies=tuple(_latency_row(window, last.values, title, f"{name}_bucket") for title, name in LATENCIES),
        keys=_key_rows(window),
    )


def _totals(window: Window, last: Snapshot) -> Totals:
    servers = last.load.servers
    return Totals(
        running=sum(server.load.running for server in servers),
        waiting=sum(server.load.waiting for server in servers),
        held=round(last.values.get(Series("held_requests"), 0.0)),
        requests_per_s=window.per_second("request_success_total", last_s=RATE_S),
        errors_per_s=_errors_per_s(window),
        refusals_per_s=window.per_second("admission_rejections_total", last_s=RATE_S),
        generated_per_s=window.per_second("load:generated_tokens", last_s=RATE_S),
        prompt_per_s=window.per_second("load:prompt_tokens", last_s=RATE_S),
        prefix_hit_share=_ratio(window.increase("load:prefix_hit_tokens"), window.increase("load:prefix_query_tokens")),
    )


def _server_row(window: Window, server: ServerPage) -> ServerRow:
    heard, load = server.is_heard, server.load
    rate = window.per_second("load:generated_tokens", last_s=RATE_S, endpoint=server.endpoint)
    return ServerRow(
        model=", ".join(model.id for model in server.models),
        endpoint=server.endpoint,
        state=_state(server),
        running=load.running if heard else None,
        waiting=load.waiting if heard else None,
        kv_share=_ratio(load.total_blocks - load.free_blocks, load.total_blocks) if heard else None,
        generated_per_s=rate if heard else None,
        preemptions=load.preemptions if heard else None,
        step_age_s=server.step_age_s if heard else None,
    )


def _latency_row(window: Window, values: Values, title: str, name: str) -> LatencyRow:
    by_bound = window.increases_by("le", name)
    # All of them: a bucket that nothing fell into is where the next one begins.
    bounds = {le for series in values if series.name == name and (le := series.label("le"))}
    buckets = {float(bound): by_bound.get(bound, 0.0) for bound in bounds}
    return LatencyRow(title, quantile(0.5, buckets), quantile(0.9, buckets), quantile(0.99, buckets))


def _errors_per_s(window: Window) -> float | None:
    rates = [window.per_second("request_failures_total", last_s=RATE_S, kind=kind) for kind in _OWN_FAULTS]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _key_rows(window: Window) -> tuple[KeyRow, ...]:
    """Those of which something ended in the window, the one with most tokens first."""
    requests, tokens = (window.increases_by("key", f"key_{name}_total") for name in ("requests", "generation_tokens"))
    seconds = window.seconds()
    rows = [KeyRow(name, count / seconds, tokens.get(name, 0.0) / seconds) for name, count in requests.items()]
    return tuple(sorted(rows, key=lambda row: (-row.tokens_per_s, row.name)))


def _state(server: ServerPage) -> str:
    if server.state == "live":
        return "ready"
    if server.state != "loading":
        return server.state
    return server.phase + ("" if server.progress is None else f" {server.progress:.0%}")


def _why_not_ready(load: LoadPage) -> str | None:
    """As the gateway's /readyz decides it."""
    live = [server for server in load.servers if server.state == "live"]
    served = {model.id for server in live for model in server.models}
    missing = {model.id for server in load.servers for model in server.models} - served
    if live and not missing:
        return None
    if live:
        return f"no live server of {', '.join(sorted(missing))}"
    loading = next((server for server in load.servers if server.state == "loading"), None)
    return "no live model server" if loading is None else _state(loading)


def _label_of(values: Values, name: str, label: str) -> str | None:
    return next((series.label(label) for series in values if series.name == name), None)


def _up_s(last: Snapshot) -> float | None:
    started = last.values.get(Series(START))
    return None if started is None else max(0.0, last.unix_s - started)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
