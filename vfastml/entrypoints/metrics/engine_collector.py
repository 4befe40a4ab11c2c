"""The state of the model servers, as their beats tell it, made into metrics when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vfastml.engine.dispatch_replies import Load
from vfastml.engine.server_table import DRAINING_PHASE, ServerState, ServerView
from vfastml.entrypoints.metrics.labels import MODEL_AND_ENGINE, engine_name

_BEATING = (ServerState.LIVE, ServerState.HUNG, ServerState.DRAINING)
_BEAT_PHASES = ("ready", DRAINING_PHASE)

_LOAD_GAUGES: tuple[tuple[str, str, Callable[[Load], float]], ...] = (
    ("num_requests_running", "Choices that are in the model's batch.", lambda load: load.running),
    ("num_requests_waiting", "Choices that wait for a place in the batch.", lambda load: load.waiting),
    ("engine_open_requests", "Requests of all gateways that have not ended.", lambda load: load.open_requests),
    ("kv_blocks", "Blocks that the KV cache has.", lambda load: load.total_blocks),
    ("kv_blocks_free", "Blocks of the KV cache that no running text holds.", lambda load: load.free_blocks),
)
_LOAD_COUNTERS: tuple[tuple[str, str, Callable[[Load], float]], ...] = (
    ("num_preemptions", "Texts that lost their KV blocks and were computed anew.", lambda load: load.preemptions),
    ("prefix_cache_queries", "Prompt tokens looked for in the prefix cache.", lambda load: load.prefix_query_tokens),
    ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", lambda load: load.prefix_hit_tokens),
    ("engine_steps", "Steps of the model.", lambda load: load.steps),
    ("engine_chunked_prefills", "Parts of prompts left for a later step.", lambda load: load.chunked_prefills),
    ("engine_prompt_tokens", "Prompt tokens computed, anew ones too.", lambda load: load.prompt_tokens),
    ("engine_generation_tokens", "Tokens generated for all gateways.", lambda load: load.generated_tokens),
)


class EngineCollector(Collector):
    """One gateway process's view: every process sees the same model servers, so that no two may be added up.

    What a server counts is told only while it beats: a server that is away has no counts, and one that comes back goes
    on where it was, or begins at 0, which Prometheus takes for the restart that it is.
    """

    def __init__(self, views: Sequence[ServerView] = ()) -> None:
        self.views = views

    def collect(self) -> Iterable[Metric]:
        views = self.views
        yield from _state_families(views)
        yield from _load_families([view for view in views if _has_beaten(view)])


def _state_families(views: Sequence[ServerView]) -> Iterable[Metric]:
    up = _gauge("engine_up", "1 if the model server can take requests, else 0.")
    state = _gauge("engine_state", "1 for the state that the model server is in, else 0.", "state")
    age = _gauge("engine_step_age_seconds", "Since the last sign of life of a model that has work to do.")
    info = _gauge("engine_info", "1, for what is known of the model server.", "device", "dtype", "decoder", "version")
    for view in views:
        labels = _labels(view)
        up.add_metric(labels, view.state is ServerState.LIVE)
        for each in ServerState:
            state.add_metric([*labels, each.value], view.state is each)
        age.add_metric(labels, view.step_age_s)
        if view.models:
            info.add_metric([*labels, view.device, view.dtype, view.decoder, view.version], 1)
    return up, state, age, info


def _load_families(views: Sequence[ServerView]) -> Iterable[Metric]:
    for name, says, value in _LOAD_GAUGES:
        gauge = _gauge(name, says)
        for view in views:
            gauge.add_metric(_labels(view), value(view.load))
        yield gauge
    for name, says, value in _LOAD_COUNTERS:
        counter = CounterMetricFamily(f"vfastml:{name}", says, labels=MODEL_AND_ENGINE)
        for view in views:
            counter.add_metric(_labels(view), value(view.load))
        yield counter
    yield _kv_usage(views)
    yield _uptime(views)


def _kv_usage(views: Sequence[ServerView]) -> Metric:
    usage = _gauge("kv_cache_usage_perc", "Share of the KV blocks that running texts hold, 0 to 1.")
    for view in views:
        if view.load.total_blocks:
            usage.add_metric(_labels(view), 1 - view.load.free_blocks / view.load.total_blocks)
    return usage


def _uptime(views: Sequence[ServerView]) -> Metric:
    uptime = _gauge("engine_uptime_seconds", "Since the model server's process started.")
    for view in views:
        uptime.add_metric(_labels(view), view.elapsed_s)
    return uptime


def _has_beaten(view: ServerView) -> bool:
    """Its load is its own account, and not what stands there until its first beat."""
    return view.state in _BEATING and view.phase in _BEAT_PHASES


def _gauge(name: str, says: str, *more_labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vfastml:{name}", says, labels=(*MODEL_AND_ENGINE, *more_labels))


def _labels(view: ServerView) -> list[str]:
    return [view.models[0].id if view.models else "", engine_name(view.endpoint)]
