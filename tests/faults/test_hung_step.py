"""Steps that never end, and long ones that do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.served_together import ServedTogether, StepFaults, gone_after_s
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

MAX_STEP_S = 2.0
HANGS = 3
IDLE_S = 60.0
LONG_STEPS = 20
LONG_STEP_S = 1.5


@pytest.fixture
def step_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepFaults:
    (tmp_path / "faults").mkdir()
    return StepFaults(tmp_path / "faults", monkeypatch)


@pytest.fixture
def served(tmp_path: Path, tiny_models: dict[str, Path], step_faults: StepFaults) -> Iterator[ServedTogether]:
    with ServedTogether(tmp_path, "--model-uri", tiny_models["llama"], "--max-step", MAX_STEP_S) as served:
        served.wait_ready()
        yield served


def test_step_that_never_ends(served: ServedTogether, step_faults: StepFaults, faults: FaultTable) -> None:
    first = served.part("model_server")
    time.sleep(IDLE_S)
    assert served.part("model_server") == first, "a false alarm"
    ended_s, again_s = [], []
    for _ in range(HANGS):
        hanging = served.part("model_server")
        step_faults.sleep(3600)
        asking = threading.Thread(target=served.complete)
        asking.start()
        began = step_faults.wait_taken("sleep")
        gone_after_s(hanging)
        ended_s.append(time.monotonic() - began)
        asking.join(30)
        assert not asking.is_alive(), "its client has an answer"
        served.wait_ready()
        again_s.append(time.monotonic() - began)
        assert served.complete() == 200
    faults.shows(
        "F3",
        f"`--max-step 2`, {HANGS} times: ended after {min(ended_s):.1f} to {max(ended_s):.1f} s, ready again after at "
        f"most {max(again_s):.1f} s; no false alarm in {IDLE_S:.0f} idle seconds",
    )
    assert served.output.count("a step takes longer than 2 s") == HANGS
    assert min(ended_s) > MAX_STEP_S - 0.5
    assert max(ended_s) < MAX_STEP_S + 1.0


def test_long_steps_below_the_limit(served: ServedTogether, step_faults: StepFaults, faults: FaultTable) -> None:
    process = served.part("model_server")
    for _ in range(LONG_STEPS):
        step_faults.sleep(LONG_STEP_S)
        assert served.complete() == 200
    assert served.part("model_server") == process
    assert "takes longer than" not in served.output
    faults.shows("F4", f"{LONG_STEPS} of {LONG_STEPS} steps of {LONG_STEP_S} s with `--max-step 2`")
