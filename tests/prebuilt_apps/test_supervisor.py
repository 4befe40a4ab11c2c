"""What `vfastml serve` does about processes that end, with small ones in their place."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.service import wait_until
from tests.models_servers.started_process import PATIENCE_S, StartedProcess

PAIR = "tests.prebuilt_apps.supervised_pair"


class SupervisedPair(StartedProcess):
    """They are named by functions of that module. All are gone at the end of a test."""

    def __init__(self, folder: Path, gateway: str, model_server: str) -> None:
        self._started = folder / "started"
        super().__init__(folder / "log", PAIR, gateway, model_server, folder)

    def started(self, role: str) -> list[int]:
        """The pids of all that were started as that."""
        lines = self._started.read_text().splitlines() if self._started.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{role} ")]

    def wait_started(self, role: str, count: int) -> int:
        """The pid of the last one."""
        wait_until(lambda: len(self.started(role)) >= count, PATIENCE_S, f"{count} of {role}:\n{self.output}")
        return self.started(role)[-1]

    def is_well_again(self) -> bool:
        """The last start has gone well."""
        return "is ready again" in self.output.rpartition("started again")[2]

    def all_gone(self) -> bool:
        return not any(is_alive(pid) for role in ("gateway", "model-server") for pid in self.started(role))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends(pair: SupervisedPair) -> int:
    """With this status, and nothing of it is left."""
    status = pair.status()
    assert pair.all_gone()
    assert "Traceback" not in pair.output
    return status


@pytest.mark.parametrize(
    ("name", "status", "times"),
    [("breaks_twice", "status 70", 2), ("is_killed_once", "status 137 (killed, as by the system when memory", 1)],
)
def test_model_server_that_was_ready_is_started_again(tmp_path: Path, name: str, status: str, times: int) -> None:
    with SupervisedPair(tmp_path, "works", name) as pair:
        pair.wait_started("model-server", times + 1)
        wait_until(pair.is_well_again, PATIENCE_S, "the last one is ready")
        assert len(pair.started("model-server")) == times + 1
        assert len(pair.started("gateway")) == 1
        assert pair.output.count(f"the model server has ended with {status}") == times
        assert "it is started again in 0.05 s" in pair.output
        pair.process.terminate()
        assert ends(pair) == 0, "it is well again"


def test_crash_loop_ends_with_the_status_of_the_last_crash(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "breaks") as pair:
        assert ends(pair) == 70
    assert len(pair.started("model-server")) == 5
    assert "the model server has ended 5 times within 60 s, now with status 70: giving up" in pair.output
    pauses = [line.rpartition(" in ")[2] for line in pair.output.splitlines() if "started again" in line]
    assert pauses == ["0.05 s", "0.1 s", "0.2 s", "0.4 s"]


def test_model_server_that_never_was_ready_is_not_started_again(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "fails") as pair:
        assert ends(pair) == 3
    assert len(pair.started("model-server")) == 1
    assert "the model server could not start, it has ended with status 3: stopping" in pair.output


@pytest.mark.parametrize(("name", "status"), [("is_killed", 137), ("leaves", 1), ("fails", 3)])
def test_gateway_that_ends_by_itself_ends_all(tmp_path: Path, name: str, status: int) -> None:
    with SupervisedPair(tmp_path, name, "works") as pair:
        assert ends(pair) == status
    assert "the gateway has ended with status" in pair.output


def test_model_server_that_broke_is_not_forgotten_at_a_signal(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "breaks_and_stays_so") as pair:
        pair.wait_started("model-server", 2)
        pair.process.terminate()
        assert ends(pair) == 70


def test_signal_in_the_pause_before_a_new_start(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "breaks") as pair:
        pair.wait_for("started again in 0.2 s")
        pair.process.terminate()
        assert ends(pair) == 70


def test_model_server_that_breaks_while_it_drains_is_told(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "breaks_when_asked_to_end") as pair:
        pair.wait_started("model-server", 1)
        time.sleep(0.5)  # until it has a handler
        pair.process.send_signal(signal.SIGINT)
        assert ends(pair) == 70


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_both_well(tmp_path: Path, stop: signal.Signals) -> None:
    with SupervisedPair(tmp_path, "works", "works") as pair:
        pair.wait_started("gateway", 1)
        pair.wait_started("model-server", 1)
        pair.process.send_signal(stop)
        assert ends(pair) == 0
    assert "ERROR" not in pair.output


def test_model_server_is_asked_to_end_once_the_gateway_has_ended(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "notes_its_end", "notes_its_end") as pair:
        pair.wait_started("gateway", 1)
        pair.wait_started("model-server", 1)
        time.sleep(0.5)  # until they have handlers
        pair.process.terminate()
        assert ends(pair) == 0
    (gateway_asked, gateway_ended), (server_asked, _) = (
        [float(part) for part in line.split()[1:]] for line in (tmp_path / "ended").read_text().splitlines()
    )
    assert gateway_asked < gateway_ended < server_asked


def test_process_that_does_not_end_is_killed_and_told(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "works", "does_not_end") as pair:
        pair.wait_started("gateway", 1)
        pair.wait_started("model-server", 1)
        time.sleep(0.5)  # until it is deaf
        for _ in range(2):
            pair.process.terminate()
            time.sleep(0.3)
        assert ends(pair) == 128 + signal.SIGKILL
    assert "the model server does not end: it is killed" in pair.output


def test_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with SupervisedPair(tmp_path, "does_not_end", "does_not_end") as pair:
        pair.wait_started("gateway", 1)
        pair.wait_started("model-server", 1)
        pair.process.kill()
        pair.status()
        wait_until(pair.all_gone, PATIENCE_S, "no process is left")
