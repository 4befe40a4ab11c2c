"""Kernels for GPUs, measured on what is at hand; no figure is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.gpu import kernel_suite
from benchmarks.gpu.kernel_cases import KernelSizes
from benchmarks.gpu.kernel_run import step_table
from benchmarks.gpu.kernel_suite import FAMILIES, KernelSuite, step_us
from benchmarks.kernel_bench import ModelShape
from benchmarks.kernel_records import KernelRun


@pytest.fixture
def sizes() -> KernelSizes:
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    shape = ModelShape(hidden=32, intermediate=64, heads=2, kv_heads=1, head_dim=16, vocab=320)
    return KernelSizes(shape, layers=3, device=device, dtype=torch.float32, rows=[1, 2], prefill_rows=16, context=16)


@pytest.mark.parametrize("families", [["products"], pytest.param(list(FAMILIES), marks=pytest.mark.slow)])
def test_every_family_is_measured(families: list[str], sizes: KernelSizes) -> None:
    suite = KernelSuite(sizes, seconds=0.001)
    runs = list(suite.runs(families))
    assert not suite.failures
    assert {run.family for run in runs} == set(families)
    assert len({(run.family, run.kernel, run.rows) for run in runs}) == len(runs)
    for run in runs:
        assert run.seconds > 0
        assert run.num_bytes > 0
        assert bool(run.others) == (run.family != "products")
        assert run.family != "fp8 products" or run.kernel.startswith("rounding")
    steps = step_us(runs)
    assert set(steps) == {1, 2}
    qkv = next(run for run in runs if run.kernel == "qkv" and run.rows == 2)
    assert steps[2]["products: qkv"] == pytest.approx(3 * 1e6 * qkv.seconds)
    assert (qkv.num_bytes, qkv.operations) == (4 * (64 * 32 + 2 * 32 + 2 * 64), 2 * 2 * 64 * 32)


def test_a_family_that_breaks_leaves_a_note(sizes: KernelSizes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernel_suite.FAMILIES, "broken", ("benchmarks.gpu.no_such_module", "cases"))
    suite = KernelSuite(sizes, seconds=0.001)
    runs = list(suite.runs(["broken", "products"]))
    assert {run.family for run in runs} == {"products"}
    assert suite.failures["broken"].startswith("ModuleNotFoundError: No module named")


def test_where_a_step_goes() -> None:
    run = {"family": "products", "number_format": "bfloat16", "threads": 0, "others": {}, "per_step": 2}
    runs = [KernelRun(kernel=name, rows=8, seconds=us / 1e6, **run) for name, us in (("qkv", 15.0), ("o", 5.0))]
    table = step_table(runs, "bfloat16")
    assert table.rows == [["products: qkv", "30 (75)"], ["products: o", "10 (25)"], ["all", "40"]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--device", "cuda", "--output", str(tmp_path)]) == 1
    assert "sees no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
