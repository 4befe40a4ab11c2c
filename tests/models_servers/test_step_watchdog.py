"""Steps that never end, and those that may look so."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.service import free_port
from tests.models_servers.raw_gateway import RawGateway
from tests.models_servers.started_process import StartedProcess
from vfastml.engine.dispatch_replies import Accepted, Hello
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.models_servers.model_server import ModelServer
from vfastml.models_servers.step_watchdog import StepAge, StepWatchdog

HANGING = "tests.models_servers.hanging_servers"
REQUEST = TextGenerationReq(request_id="a", prompt="x")

# -- the age of a step


def ages(*looks: tuple[float | None, float]) -> list[float]:
    """What is seen at each of them: when the step began, and the time of the look."""
    age = StepAge(longest_gap_s=2.0)
    return [age.seen(began_s, now_s) for began_s, now_s in looks]


def test_a_step_grows_older_with_each_look() -> None:
    assert ages((10.0, 10.5), (10.0, 11.5), (10.0, 12.5)) == [0.5, 1.5, 2.5]


def test_the_next_step_is_young() -> None:
    assert ages((10.0, 10.5), (10.0, 11.5), (12.0, 12.25)) == [0.5, 1.5, 0.25]


def test_no_step_has_no_age_however_long_nothing_happens() -> None:
    assert ages((None, 1e6), (None, 2e6), (2e6, 2e6 + 1)) == [0.0, 0.0, 1.0]
    assert ages((1.0, 2.0), (None, 3.0), (1.0, 2.0)) == [1.0, 0.0, 1.0], "an idle look ends the step"


def test_time_in_which_nobody_could_look_hardly_counts() -> None:
    asleep_s = 3600.0
    assert ages((10.0, 11.0), (10.0, 11.0 + asleep_s), (10.0, 12.0 + asleep_s)) == [1.0, 3.0, 4.0]
    assert ages((10.0, 10.0 + asleep_s)) == [2.0], "nor before the first look"


# -- the thread


@contextmanager
def watching(max_step_s: float) -> Iterator[tuple[StepWatchdog, threading.Event]]:
    """The event is set instead of ending this process."""
    hung = threading.Event()
    watchdog = StepWatchdog(max_step_s, 70, on_hung=hung.set)
    watchdog.start()
    try:
        yield watchdog, hung
    finally:
        watchdog.stop()


def test_a_step_that_does_not_end_is_found() -> None:
    with watching(0.2) as (watchdog, hung):
        watchdog.step_begins()
        assert hung.wait(30)
        watchdog.step_ended()


def test_many_short_steps_and_none_are_no_long_one() -> None:
    with watching(1.0) as (watchdog, hung):
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            watchdog.step_begins()
            watchdog.step_ended()
            time.sleep(0.005)
        assert not hung.wait(2.0)


# -- real processes


def started(tmp_path: Path, name: str, port: int, max_step_s: float) -> StartedProcess:
    return StartedProcess(tmp_path / "log", HANGING, name, port, max_step_s)


def ask(gateway: RawGateway) -> None:
    assert isinstance(gateway.next(), Hello)
    gateway.send(REQUEST)
    assert gateway.next() == Accepted("a", 1)


def test_hanging_step_is_written_down_and_the_process_ends_with_70(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "Sleeps", port, 0.5) as server, RawGateway(port) as gateway:
        ask(gateway)
        assert server.status() == 70
    assert "a step takes longer than 0.5 s" in server.output
    assert "in sleep_for_ever" in server.output, "what the model's thread does"
    assert "server_link.py" in server.output, "what the others do"


def test_step_that_keeps_the_interpreters_lock_ends_the_process(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "KeepsTheLock", port, 0.5) as server, RawGateway(port) as gateway:
        assert isinstance(gateway.next(), Hello)
        gateway.send(REQUEST)  # the reply needs the lock as well
        assert server.status() == 1
    assert "Timeout (" in server.output
    assert "in keep_for_ever" in server.output


def test_hanging_step_ends_the_process_while_it_drains(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "Sleeps", port, 1.0) as server, RawGateway(port) as gateway:
        ask(gateway)
        server.process.terminate()
        assert server.status() == 70


def test_an_end_that_does_not_come_is_made(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "NeverCloses", port, 60.0) as server, RawGateway(port) as gateway:
        assert isinstance(gateway.next(), Hello)
        server.process.terminate()
        assert server.status() == 1
    assert "in keep_for_ever" in server.output


def test_process_that_was_stopped_in_a_step_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "WorksForASecond", port, 4.0) as server, RawGateway(port) as gateway:
        ask(gateway)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(3.7)  # with the step's own second more than it may take
        server.process.send_signal(signal.SIGCONT)
        server.wait_for("the step is over")
        server.process.terminate()
        assert server.status() == 0


def test_loading_and_idling_may_take_any_time(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "LoadsForASecond", port, 0.2) as server, RawGateway(port) as gateway:
        assert isinstance(gateway.next(), Hello)
        time.sleep(1.5)
        server.process.terminate()
        assert server.status() == 0
    assert "longer than" not in server.output


def test_a_step_that_may_take_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="max_step_s must be positive"):
        ModelServer("text_generation", "stub", max_step_s=0)
