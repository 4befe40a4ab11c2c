"""A tiny run of the real thing; no figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.cpu_kernels.levels import fitting_levels

needs_x86 = pytest.mark.skipif(not fitting_levels(), reason="kernels are for x86 with AVX2")

SHAPE = ["--hidden=20", "--intermediate=33", "--heads=4", "--kv-heads=2", "--head-dim=8", "--vocab=50"]
ROWS = ["--rows=1,3", "--decode-rows=2", "--contexts=500", "--prompts=100"]  # long: few layers fill the least memory
TINY = [*SHAPE, *ROWS, "--seconds=0.001", "--memory-mb=1"]


@needs_x86
def test_a_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert kernels.main([*TINY, "--threads", "1,2", "--output", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    (written,) = tmp_path.glob("kernels-*.json")
    assert written.with_suffix(".png").stat().st_size > 1000
    assert str(tmp_path) not in written.read_text()
    result = json.loads(written.read_bytes())
    assert result["settings"]["hidden"] == 20
    assert [limits["threads"] for limits in result["limits"]] == [1, 2]
    for limits in result["limits"]:
        assert min(limits["bytes_per_s"], *limits["operations_per_s"].values()) > 0

    runs = result["runs"]
    # for each number of threads: 5 matrices in 3 formats, 2 shapes of attention and 3 kernels on rows in 2 dtypes
    assert len(runs) == 2 * (5 * 3 * 2 + 2 * 2 + 3 * 2 * 2)
    assert len({(run["threads"], run["number_format"], run["kernel"], run["rows"]) for run in runs}) == len(runs)
    for run in runs:
        assert run["seconds"] > 0
        assert run["others"]
        assert (run["least_s"] is None) == (run["family"] == "rows")
    qkv = next(run for run in runs if run["kernel"] == "qkv" and run["rows"] == 3)
    assert (qkv["num_bytes"], qkv["operations"]) == ((4 + 2 * 2) * 8 * 20 * 4, 2 * 3 * (4 + 2 * 2) * 8 * 20)
    prompt = next(run for run in runs if run["kernel"] == "prompt")
    assert (prompt["rows"], prompt["operations"]) == (100, 4 * sum(range(101)) * 4 * 8)

    printed = capsys.readouterr().out
    for title in ("products, int8, 2 threads", "attention, bfloat16, 1 thread", "rows, float32, 2 threads"):
        assert title in printed


@needs_x86
def test_what_is_measured_can_be_chosen(tmp_path: Path) -> None:
    asked = ["--level", "avx2", "--dtype", "float32", "--kernels", "products,rows", "--threads", "1"]
    assert kernels.main([*TINY, *asked, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("kernels-*.json")
    result = json.loads(written.read_bytes())
    assert result["level"] == "avx2"
    assert {(run["family"], run["number_format"]) for run in result["runs"]} == {
        ("products", "float32"),
        ("rows", "float32"),
    }


def test_an_unknown_dtype_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["--dtype", "float64"])
    assert "'float64' is none of float32, bfloat16, int8" in capsys.readouterr().err


def test_what_is_for_gpus_alone_is_refused_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["--kernels", "products,sampling"])
    assert "'sampling' is measured on a GPU alone" in capsys.readouterr().err


def test_without_kernels_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(level: str) -> None:
        raise NoKernels("this processor has no AVX2")

    monkeypatch.setattr(cpu_kernels, "load", refuse)
    assert kernels.main([]) == 1
    assert capsys.readouterr().err == "this processor has no AVX2\n"
