"""The document that is made of a result, and its targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engine_titles import TOKENS_PER_S
from benchmarks.errors import BenchmarkError
from benchmarks.gpu.markdown import markdown
from benchmarks.gpu.picture import draw
from benchmarks.gpu.records import GpuResult
from benchmarks.gpu.targets import batch_1_share, lost_over_http, targets, times_generate_batch
from benchmarks.gpu.titles import DEFAULT, EQUAL, GREEDY, HTTP, STEP_GB, batch, closed_loop
from tests.benchmarks.gpu.gpu_results import MODEL, good_result


def verdicts(result: GpuResult) -> dict[str, str]:
    return {target.title: target.verdict(dry=result.dry) for target in targets(result)}


def test_arithmetic_of_the_roofline() -> None:
    # 15 GB in 6 ms are 2500 GB/s, of the 3000 that a copy comes to
    assert batch_1_share(good_result(), MODEL) == pytest.approx(100 * 2500 / 3000)
    assert times_generate_batch(good_result(), MODEL) == pytest.approx(6.0)
    assert lost_over_http(good_result(), MODEL, 32) == pytest.approx(10.0)


def test_all_targets_are_met() -> None:
    assert set(verdicts(good_result()).values()) == {"yes"}


@pytest.mark.parametrize(
    ("case", "workload", "title", "value", "target"),
    [
        (DEFAULT, batch(1), STEP_GB, 13.0, "batch 1, of the copy bandwidth, %"),
        (DEFAULT, batch(128), TOKENS_PER_S, 9_999.0, "batch 128, tokens/s"),
        (HTTP, closed_loop(32), TOKENS_PER_S, 3_500.0, "lost over HTTP at c=32, % of tokens/s"),
        (HTTP, closed_loop(32), "failed", 1.0, "lost over HTTP at c=32, % of tokens/s"),
        (DEFAULT, GREEDY, EQUAL, 99.9, "greedy tokens equal to transformers' generate in float32, %"),
    ],
)
def test_each_target_can_be_missed(case: str, workload: str, title: str, value: float, target: str) -> None:
    result = good_result()
    for measurement in result.of(case=case, workload=workload):
        measurement.figures[title] = value
    assert [name for name, verdict in verdicts(result).items() if verdict == "NO"] == [target]


def test_what_was_not_measured_is_not_met() -> None:
    result = good_result()
    result.measurements = []
    assert set(verdicts(result).values()) == {"not measured"}


def test_a_dry_run_meets_no_speed() -> None:
    found = verdicts(good_result(dry=True))
    assert found["batch 128, tokens/s"] == "dry"
    assert found["tests of the kernels"] == "yes"


def test_the_document_has_all_of_a_stored_result(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    good_result().save(path)
    text = markdown(GpuResult.load(path), "gpu.png")
    for part in (
        "torch 2.11.0",
        "flash-attn is not installed",
        "![",
        "| batch 1 | 128 | 256 | 1 | 151 | 6 | 83.3 | - |",
    ):
        assert part in text
    assert f"| {MODEL}, no overlap | 140 | 0.93x | - | - |" in text
    assert "| batch 128, tokens/s | at least 10,000 | 10,800 | yes |" in text
    assert "| generate_batch: batch 128 |" in text
    assert "| fp8 | FAILED | 5 | 30 | it broke |" in text
    assert "Traceback\nit broke" in text
    assert "| products: qkv, us | 384 |" in text
    assert "| qkv, n=8 | 12 |" in text
    assert "dry run" not in text


def test_a_dry_document_says_so() -> None:
    assert "No figure below means anything" in markdown(good_result(dry=True))


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(good_result(), tmp_path / "made" / "gpu.png")
    assert (tmp_path / "made" / "gpu.png").stat().st_size > 10_000


def test_nothing_measured_is_a_document_too(tmp_path: Path) -> None:
    result = good_result()
    result.measurements, result.outcomes = [], []
    assert "not measured" in markdown(result)
    draw(result, tmp_path / "gpu.png")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(BenchmarkError, match=r"other\.json is not a result"):
        GpuResult.load(tmp_path / "other.json")
