"""The programs of the parts, on small things."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from benchmarks.gpu import equality, offline
from benchmarks.gpu.bandwidth import copy_bytes_per_s, read_bytes_per_s
from benchmarks.gpu.equality import equal_share, relative_error
from benchmarks.gpu.gpu_tests import TestCounts
from benchmarks.gpu.measurements import MeasurementFile
from benchmarks.gpu.model_shapes import TINY
from benchmarks.gpu.part_program import NOT_HERE, part_program
from benchmarks.gpu.plan import SWITCHES, Plan, files_marked_gpu
from benchmarks.gpu.scale import DRY, FULL, Scale
from benchmarks.gpu.tasks import EqualityTask, OfflineTask, TestsTask, Workload
from benchmarks.gpu.titles import EQUAL, ERROR, REFERENCE_ERROR

_TESTS = """
import pytest

def test_that_passes(): pass
@pytest.mark.skip
def test_that_is_skipped(): pass
def test_that_fails(): assert 1 == 2
@pytest.fixture
def broken(): raise OSError("no such device")
def test_without_its_fixture(broken): pass
"""


def test_tests_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    task = TestsTask(
        part="tests", runs=[[str(tmp_path / "test_it.py")], [str(tmp_path / "test_broken.py")]], seconds=600
    )
    words = [msgspec.json.encode(task).decode(), str(tmp_path / "found.jsonl")]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.gpu_tests", *words], input=b"\n", capture_output=True, check=True
    )
    (found,) = MeasurementFile(tmp_path / "found.jsonl").read()
    assert found.figures == {"passed": 1.0, "failed": 3.0, "skipped": 1.0, "not run": 0.0}
    unreadable, failed, broken = sorted(found.notes)  # several processes may have run them
    assert failed.endswith("test_that_fails: assert 1 == 2")
    assert broken.endswith("test_without_its_fixture: OSError: no such device")
    assert unreadable.endswith("ModuleNotFoundError: No module named 'no_such_module'")


@pytest.mark.parametrize(("seconds", "stops"), [(-1.0, True), (600.0, False)])
def test_no_test_begins_once_the_time_is_up(seconds: float, stops: bool) -> None:
    session: Any = SimpleNamespace(items=["first", "second"], shouldstop=False)
    report: Any = SimpleNamespace(failed=False, skipped=False, when="call")
    counts = TestCounts(time.monotonic() + seconds)
    counts.pytest_collection_finish(session)
    counts.pytest_runtest_logreport(report)
    assert bool(session.shouldstop) is stops
    assert counts.measurement("tests").figures == {"passed": 1.0, "failed": 0.0, "skipped": 0.0, "not run": 1.0}


def test_tests_in_several_processes_are_counted_once() -> None:
    session = SimpleNamespace(shouldstop=False)
    node = SimpleNamespace(config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda name: session)))
    counts = TestCounts(time.monotonic() - 1.0)
    for _ in range(3):
        counts.pytest_xdist_node_collection_finished(node, ["first", "second"])
    report: Any = SimpleNamespace(failed=False, skipped=False, when="call")
    counts.pytest_runtest_logreport(report)
    assert session.shouldstop
    assert counts.measurement("tests").figures == {"passed": 1.0, "failed": 0.0, "skipped": 0.0, "not run": 1.0}


def test_tokens_are_equal_up_to_the_first_that_differs() -> None:
    assert equal_share([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 9, 6]]) == pytest.approx(4 / 6)
    assert equal_share([[1, 2]], [[1, 2, 3]]) == 0


def test_an_error_is_relative() -> None:
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.4 / 5)


def test_a_small_random_model_says_what_transformers_says(tmp_path: Path) -> None:
    task = EqualityTask(
        part="equality",
        shape=TINY.name,
        may_be_built_in=False,
        device="cpu",
        dtype="bfloat16",
        cases={"default": {"decoder": "fused-torch"}, "unknown": {"no_such_setting": 1}},
        prompt_lengths=[5, 40],
        tokens=6,
        rows=2,
        seed=1,
    )
    found = MeasurementFile(tmp_path / "found.jsonl")
    equality.measure(task, found)
    greedy, logits, unknown = found.read()
    assert greedy.figures == {EQUAL: 100.0}
    assert 0 < logits.figures[ERROR] < 3 * logits.figures[REFERENCE_ERROR] < 10
    assert "no such setting" in unknown.notes[0]


def test_a_setting_that_cannot_be_had_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"device": "cpu", "no_such_setting": True}
    workload = Workload(name="it", sequences=1, input_tokens=1, output_tokens=1)
    task = OfflineTask(part="p", model="m", case="c", folder=str(tmp_path), config=config, workloads=[workload], seed=1)
    monkeypatch.setattr("sys.argv", ["offline", msgspec.json.encode(task).decode(), str(tmp_path / "found.jsonl")])
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert part_program(offline.measure, OfflineTask) == NOT_HERE
    assert "no_such_setting" in capsys.readouterr().err


def test_memory_is_copied_and_read() -> None:
    device = torch.device("cpu")
    assert min(copy_bytes_per_s(device, 1 << 16), read_bytes_per_s(device, 1 << 16)) > 0


@pytest.mark.parametrize("scale", [FULL, DRY], ids=["full", "dry"])
def test_the_plan_has_what_matters_first(scale: Scale, tmp_path: Path) -> None:
    parts = Plan(scale, tmp_path, 1).parts()
    names = [part.name for part in parts]
    large = scale.large.name
    assert names[:3] == ["bandwidth", "tests", "equality"]
    assert names[3:6] == [f"{large}, default", f"{large}, transformers", f"{large}, HTTP"]
    assert {f"{large}, {case}" for case in SWITCHES} <= set(names)
    assert len(set(names)) == len(names)
    tasks = {part.name: json.loads(part.words[-1]) for part in parts}
    assert tasks[f"{large}, no overlap"]["config"]["overlap"] is False
    assert tasks[f"{large}, default"]["workloads"][0]["sequences"] == 1


@pytest.mark.parametrize("scale", [FULL, DRY], ids=["full", "dry"])
def test_the_tests_that_are_run_exist(scale: Scale) -> None:
    root = Path(__file__).parents[3]
    assert all((root / path).exists() for path in scale.tests)


def test_tests_marked_for_a_card_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "tests" / "deep" / "test_marked.py").write_text("@pytest." + "mark.gpu\ndef test_it(): pass\n")
    (tmp_path / "tests" / "test_other.py").write_text("def test_it(): pass\n")
    monkeypatch.chdir(tmp_path)
    assert files_marked_gpu() == ["tests/deep/test_marked.py"]


def test_a_dry_plan_is_small(tmp_path: Path) -> None:
    for part in Plan(DRY, tmp_path, 1).parts():
        for workload in json.loads(part.words[-1]).get("workloads", []):
            assert workload["sequences"] <= 2
            assert workload["output_tokens"] <= 2
