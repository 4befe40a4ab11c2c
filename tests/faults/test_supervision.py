"""Processes of `vfastml serve` that cannot start, break, are killed, or die again and again."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from prebuilt_apps.openai.restart_budget import MOST_DEATHS
from tests.e2e.service import wait_until
from tests.faults.served_together import ServedTogether, StepFaults, gone_after_s, is_alive
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

BREAKS = 5
KILLS = 3


@pytest.fixture
def step_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepFaults:
    (tmp_path / "faults").mkdir()
    return StepFaults(tmp_path / "faults", monkeypatch)


@pytest.fixture
def model(tiny_models: dict[str, Path]) -> tuple[object, ...]:
    return "--model-uri", tiny_models["llama"]


@pytest.fixture
def served(tmp_path: Path, model: tuple[object, ...]) -> Iterator[ServedTogether]:
    with ServedTogether(tmp_path, *model) as served:
        served.wait_ready()
        yield served


def test_model_that_is_not_there(tmp_path: Path, faults: FaultTable) -> None:
    with ServedTogether(tmp_path, "--model-uri", tmp_path / "nowhere") as served:
        gone_after_s(served.part("model_server"))
        ended = time.monotonic()
        assert served.status() == 1
        passed_s = time.monotonic() - ended
        assert served.left() == []
        [cause] = [line for line in served.output.splitlines() if "There is no folder" in line]
    faults.shows("F6", f"no such model: status 1 and all gone after {passed_s:.1f} s")
    assert passed_s < 2.0
    assert " ERROR " in cause
    assert "Traceback" not in served.output


def test_model_server_killed_while_it_loads(tmp_path: Path, model: tuple[object, ...], faults: FaultTable) -> None:
    with ServedTogether(tmp_path, *model) as served:
        served.wait_for("loading torch")
        served.part("model_server").kill()
        killed = time.monotonic()
        assert served.status() == 128 + signal.SIGKILL
        passed_s = time.monotonic() - killed
        assert served.left() == []
    faults.shows("F6", f"killed while loading: status 137 and all gone after {passed_s:.1f} s")
    assert passed_s < 2.0
    assert served.output.count("the model server could not start, it has ended with status 137") == 1


@pytest.mark.parametrize("victim", ["gateway", "supervisor"])
def test_gateway_or_supervisor_killed(
    tmp_path: Path, model: tuple[object, ...], faults: FaultTable, victim: str
) -> None:
    with ServedTogether(tmp_path, *model, "--workers", 2) as served:
        served.wait_ready()
        wait_until(lambda: len(served.left()) == 4, 30, "a model server, the gateways' supervisor, two gateways")
        open_streams(served, 8)
        killed = served.part("api_server") if victim == "gateway" else psutil.Process(served.process.pid)
        left = served.left()
        killed.kill()
        passed_s = wait_until(lambda: not any(is_alive(process) for process in left), 30, "no orphan")
        assert served.status() == (137 if victim == "gateway" else -signal.SIGKILL)
        with ServedTogether(tmp_path, *model, ports=served.ports) as again:
            again.wait_ready()
            assert again.complete() == 200
    faults.shows(
        "F7", f"{victim} killed under 8 streams: no process left after {passed_s:.1f} s, the next start worked"
    )
    assert passed_s < 5.0


def open_streams(served: ServedTogether, count: int) -> None:
    """Each has had its first words."""
    begun = threading.Barrier(count + 1, timeout=60)
    body = {"prompt": "x", "max_tokens": 3000, "ignore_eos": True, "stream": True}

    def read() -> None:
        try:
            with httpx.stream("POST", f"{served.url}/v1/completions", json=body, trust_env=False) as response:
                lines = response.iter_lines()
                next(lines)
                begun.wait()
                for _ in lines:
                    pass
        except httpx.TransportError:
            return  # its gateway was killed

    for _ in range(count):
        threading.Thread(target=read, daemon=True).start()
    begun.wait()


def test_model_breaks_and_then_comes_sigterm(
    tmp_path: Path, model: tuple[object, ...], step_faults: StepFaults, faults: FaultTable
) -> None:
    statuses = []
    for number in range(BREAKS):
        with ServedTogether(tmp_path, *model) as served:
            served.wait_ready()
            breaking = served.part("model_server")
            step_faults.break_()
            assert served.complete() in (500, 503)
            gone_after_s(breaking)
            time.sleep(number * 0.3)  # at once, in the pause, in the next start
            served.process.terminate()
            statuses.append(served.status())
            assert served.left() == []
    faults.shows(
        "F8", f"SIGTERM 0 to {(BREAKS - 1) * 0.3:.1f} s after the break: status {set(statuses)}, {BREAKS} times"
    )
    assert statuses == [70] * BREAKS


def test_model_server_killed_as_by_the_system(served: ServedTogether, faults: FaultTable) -> None:
    gateway = served.part("api_server")
    unready_s, ready_s = [], []
    for _ in range(KILLS):
        served.part("model_server").kill()
        killed = time.monotonic()
        wait_until(lambda: served.status_of("/readyz") == 503, 10, "the loss is seen")
        unready_s.append(time.monotonic() - killed)
        served.wait_ready()
        ready_s.append(time.monotonic() - killed)
        assert served.complete() == 200
    assert served.part("api_server") == gateway
    assert (
        served.output.count("status 137 (killed, as by the system when memory runs out): it is started again") == KILLS
    )
    faults.shows(
        "F20",
        f"killed {KILLS} times with SIGKILL, as the system does: 503 after at most {max(unready_s):.2f} s, ready again "
        f"after {min(ready_s):.1f} to {max(ready_s):.1f} s with pauses of 0.5, 1 and 2 s, same gateway",
    )
    assert max(ready_s) < 15.0


def test_dies_again_and_again(served: ServedTogether, faults: FaultTable) -> None:
    began, pauses_s, answers = time.monotonic(), [], []
    for deaths in range(1, MOST_DEATHS + 1):
        dying = served.part("model_server")
        dying.kill()
        gone_after_s(dying)
        died = time.monotonic()
        if deaths < MOST_DEATHS:
            wait_until(lambda: served.status_of("/readyz") == 503, 10, "the loss is seen")
            answers.append((served.status_of("/livez"), served.status_of("/readyz")))
            served.part("model_server")  # the next one
            pauses_s.append(time.monotonic() - died)
    status, lived_s = served.status(), time.monotonic() - began
    assert served.left() == []
    faults.shows(
        "F24",
        f"pauses of {', '.join(f'{pause_s:.1f}' for pause_s in pauses_s)} s, meanwhile `/livez` 200 and `/readyz` 503; "
        f"status {status} at the fifth death, {lived_s:.0f} s after the first",
    )
    assert status == 137
    assert answers == [(200, 503)] * (MOST_DEATHS - 1)
    assert all(later > 1.3 * earlier for earlier, later in itertools.pairwise(pauses_s))
    assert "the model server has ended 5 times within 60 s" in served.output
