"""What is told of model servers that come and go."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client import CollectorRegistry

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_replies import Load
from vfastml.engine.server_table import ServerState, ServerView
from vfastml.entrypoints.metrics.engine_collector import EngineCollector

LIVE = FakeDispatchEngine().servers()[0]
LABELS = {"model_name": "tiny", "engine": "127.0.0.1:6500"}


def told(name: str, view: ServerView, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(EngineCollector([view]))
    return registry.get_sample_value(f"vfastml:{name}", {**LABELS, **labels})


def test_a_live_one() -> None:
    assert told("engine_up", LIVE) == 1
    assert told("engine_steps_total", LIVE) == 9
    assert told("kv_cache_usage_perc", LIVE) == 0.25
    assert told("engine_info", LIVE, device="cpu", dtype="bfloat16", decoder="hf", version="1.2.3") == 1


@pytest.mark.parametrize(
    ("state", "phase"),
    [(ServerState.LOST, ""), (ServerState.LOADING, "starting"), (ServerState.LIVE, "starting")],
    ids=["lost", "back, without Hello", "back, without a beat"],
)
def test_one_that_has_not_beaten_has_no_counts(state: ServerState, phase: str) -> None:
    view = dataclasses.replace(LIVE, state=state, phase=phase, load=Load())
    assert told("engine_steps_total", view) is None
    assert told("kv_blocks", view) is None
    assert told("engine_up", view) == (state is ServerState.LIVE)
    assert told("engine_state", view, state=state.value) == 1


def test_a_hung_one_is_not_up_and_tells_for_how_long() -> None:
    view = dataclasses.replace(LIVE, state=ServerState.HUNG, step_age_s=40.0)
    assert told("engine_up", view) == 0
    assert told("engine_step_age_seconds", view) == 40.0
    assert told("num_requests_running", view) == 2


def test_one_without_blocks_has_no_share_of_them() -> None:
    assert told("kv_cache_usage_perc", dataclasses.replace(LIVE, load=Load())) is None
