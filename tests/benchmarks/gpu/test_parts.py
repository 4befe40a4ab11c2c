"""Parts with programs of a few lines in the place of the real ones."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.parts import Part, PartRunner
from benchmarks.gpu.records import DONE, FAILED, LATE, LEFT_OUT, NOT_HERE, STOPPED
from benchmarks.stopping import until_stopped

_MEASURES = """
import sys
if not sys.stdin.readline():
    sys.exit("nobody is left to wait for")
with open(sys.argv[-1], "a") as file:
    print('{"part": "it", "figures": {"x": 1.5}}', file=file)
"""


def program(name: str, then: str = "", budget_s: float = 30.0) -> Part:
    """Leaves one measurement, then does something."""
    return Part(name, budget_s, (sys.executable, "-c", _MEASURES + then))


def run(parts: list[Part], folder: Path, seconds: float = 60.0) -> tuple[PartRunner, list[str]]:
    said: list[str] = []
    runner = PartRunner(folder, seconds, {"FROM_PLAN": "1"}, said.append)
    runner.run_all(parts)
    return runner, said


def test_measurements_are_gathered_and_shown(tmp_path: Path) -> None:
    runner, said = run([program("first part"), program("second")], tmp_path)
    assert [outcome.status for outcome in runner.outcomes] == [DONE, DONE]
    assert [measurement.figures for measurement in runner.measurements] == [{"x": 1.5}, {"x": 1.5}]
    assert sum("x 1.5" in line for line in said) == 2


def test_a_part_that_fails_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = program("broken", "print('no such card', file=sys.stderr); sys.exit(1)")
    runner, _ = run([broken, program("next")], tmp_path)
    failed, following = runner.outcomes
    assert (failed.status, failed.reason) == (FAILED, "status 1: no such card")
    assert "no such card" in failed.log
    assert following.status == DONE
    assert len(runner.measurements) == 2  # what was measured before it broke counts


def test_what_a_machine_cannot_run_is_no_failure(tmp_path: Path) -> None:
    runner, _ = run([program("flash", "print('flash-attn is not installed'); sys.exit(3)")], tmp_path)
    (outcome,) = runner.outcomes
    assert (outcome.status, outcome.reason) == (NOT_HERE, "flash-attn is not installed")


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    runner, _ = run([program("slow", "import time; time.sleep(600)", budget_s=2.0), program("next")], tmp_path)
    assert [outcome.status for outcome in runner.outcomes] == [LATE, DONE]
    assert runner.outcomes[0].seconds < 60
    assert len(runner.measurements) == 2


def test_without_time_a_part_is_left_out(tmp_path: Path) -> None:
    runner, _ = run([program("late", budget_s=30.0)], tmp_path, seconds=1.0)
    (outcome,) = runner.outcomes
    assert outcome.status == LEFT_OUT
    assert not runner.measurements


def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    stopping = program("stops all", "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(600)")
    runner = PartRunner(tmp_path, 60.0, {}, lambda line: None)
    assert until_stopped(lambda: runner.run_all([program("first"), stopping, program("never")])) == 130
    assert [outcome.status for outcome in runner.outcomes] == [DONE, STOPPED]
    assert len(runner.measurements) == 2  # and the third, which waits already, ends without having done anything
    assert not (tmp_path / "never.jsonl").exists()


def test_parts_get_their_environment(tmp_path: Path) -> None:
    runner, _ = run([program("looks", "import os; sys.exit(os.environ['FROM_PLAN'] != '1')")], tmp_path)
    assert runner.outcomes[0].status == DONE


def test_what_is_no_number_is_noted(tmp_path: Path) -> None:
    file = MeasurementFile(tmp_path / "found.jsonl")
    file.add(Measurement(part="one", figures={"error, %": math.nan, "ms": 2.0}, notes=["before"]))
    (found,) = file.read()
    assert found.figures == {"ms": 2.0}
    assert found.notes == ["before", "error, %: nan"]


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    found = MeasurementFile(tmp_path / "it.jsonl")
    assert found.read() == []
    found.add(Measurement(part="it", figures={"x": 1.0}))
    with (tmp_path / "it.jsonl").open("a") as file:
        file.write('{"part": "i')
    assert found.read() == [Measurement(part="it", figures={"x": 1.0})]


@pytest.mark.parametrize(("name", "file_name"), [("llama-3.1-8b, no overlap", "llama-3.1-8b-no-overlap"), ("a", "a")])
def test_file_names_of_parts(name: str, file_name: str) -> None:
    assert Part(name, 1.0, ()).file_name == file_name
