"""TORCH=... chooses the build of torch that the environment gets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dry_run(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make serve` would run with that environment."""
    command = ["make", "--no-print-directory", "-n", "serve", f"VENV={venv}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def environment(folder: Path, torch: str) -> Path:
    """What a finished `make serve TORCH=...` leaves for make to look at."""
    for name in (f".torch-{torch}", ".ready"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("torch", "asked"),
    [("cpu", "--torch-backend=cpu"), ("auto", "--torch-backend=auto"), ("cu128", "--torch-backend=cu128")],
)
def test_uv_is_told_which_build(tmp_path: Path, torch: str, asked: str) -> None:
    output = dry_run(tmp_path, f"TORCH={torch}").stdout
    assert f"{asked} " in output
    assert output.index("uv pip install") < output.index("install -r requirements.txt")


def test_cuda_is_the_default_build_of_uv(tmp_path: Path) -> None:
    output = dry_run(tmp_path, "TORCH=cuda").stdout
    assert "uv pip install" in output
    assert "--torch-backend" not in output


def test_without_a_choice_pip_alone_installs(tmp_path: Path) -> None:
    output = dry_run(tmp_path).stdout
    assert "uv" not in output
    assert "-m venv --clear" in output


@pytest.mark.parametrize("torch", ["gpu", "cpu cuda", ""])
def test_an_unknown_choice_is_one_clear_line(tmp_path: Path, torch: str) -> None:
    run = dry_run(tmp_path, f"TORCH={torch}")
    assert run.returncode == 2
    assert f"TORCH={torch} is unknown: use pip, cpu, cuda, auto, or a CUDA version" in run.stderr


def test_a_choice_holds_until_another_one_is_made(tmp_path: Path) -> None:
    venv = environment(tmp_path, "cpu")
    for arguments in ((), ("TORCH=cpu",)):
        output = dry_run(venv, *arguments).stdout
        assert "pip" not in output
        assert "prebuilt_apps.openai" in output
    for other in ("cuda", "pip"):
        assert "-m venv --clear" in dry_run(venv, f"TORCH={other}").stdout


@pytest.mark.parametrize("target", ["help", "clean", None])
def test_a_foreign_choice_is_nothing_to_what_needs_no_environment(target: str | None) -> None:
    command = ["make", "-n", *([target] if target else [])]
    environment = {**os.environ, "TORCH": "/opt/torch"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def image_builds(*arguments: str) -> tuple[str, str]:
    """What `make images` would run: for the gateway, and for the model server."""
    command = ["make", "--no-print-directory", "-n", "images", *arguments]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    api, model = (" ".join(line.split()) for line in output.splitlines())
    return api, model


def test_images_are_built_with_the_program_that_is_named() -> None:
    for name, build in zip(("api", "model"), image_builds("CONTAINER=podman", "ARGS=--network host"), strict=True):
        assert build == f"podman build --network host --file Dockerfile.{name} --tag vfastml-{name} ."


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (["TORCH=cpu"], "--build-arg TORCH=cpu --build-arg BASE=python:3.12-slim "),
        (["TORCH=cpu", "BASE=mine"], "--build-arg TORCH=cpu --build-arg BASE=mine "),
        (["TORCH=cu128"], "--build-arg TORCH=cu128 "),
        (["TORCH=cuda"], ""),
        (["TORCH=pip"], ""),
    ],
)
def test_the_model_image_gets_the_build_that_is_asked_for(arguments: list[str], passed: str) -> None:
    api, model = image_builds(*arguments)
    assert "--build-arg" not in api
    assert model == f"docker build {passed}--file Dockerfile.model --tag vfastml-model ."


def test_an_image_is_not_that_of_the_environment_here(tmp_path: Path) -> None:
    assert "--build-arg" not in image_builds(f"VENV={environment(tmp_path, 'cpu')}")[1]


def test_an_image_is_not_built_for_the_driver_of_this_machine() -> None:
    command = ["make", "-n", "images", "TORCH=auto"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert "TORCH=auto sees no GPU driver while an image is built" in run.stderr
