"""Disks that are full or cannot be written, and no folder for temporary files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.served_together import ServedTogether, add_hooks
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Makes a small file system with these options the cache; root alone can."""
    folder = tmp_path / "cache"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for each in mounted:
        subprocess.run(["umount", "--lazy", str(each)], check=True)


def fill(file: Path) -> None:
    """Until there is no room for more."""
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@pytest.mark.parametrize(
    ("options", "reason"), [("ro", "Read-only file system"), ("nr_inodes=1", "No space left on device")]
)
def test_cache_that_cannot_be_written(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch, faults: FaultTable, options: str, reason: str
) -> None:
    monkeypatch.setenv("VFASTML_CACHE", str(mount(options)))
    with ServedTogether(tmp_path) as served:  # the built-in model, which has to be prepared
        assert served.status() == 1
        [line] = [line for line in served.output.splitlines() if reason in line]
    faults.shows("F23", f"{reason.lower()}: status 1, one line that names the cache")
    assert "set VFASTML_CACHE to a folder that can be written" in line
    assert "Traceback" not in served.output


def test_disk_that_fills_up_under_a_running_server(
    tmp_path: Path, tiny_models: dict[str, Path], mount: Mount, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    cache = mount("size=4m")
    monkeypatch.setenv("VFASTML_CACHE", str(cache))
    with ServedTogether(cache, "--model-uri", tiny_models["llama"], "--access-log", "all") as served:  # its log, too
        served.wait_ready()
        before = served.left()
        with pytest.raises(OSError, match="No space left"):
            fill(cache / "filler")
        answers = [served.complete() for _ in range(20)]
        assert set(served.left()) == set(before)
    faults.shows("F23", f"disk of cache and log full: {answers.count(200)} of {len(answers)} requests answered")
    assert answers == [200] * len(answers)


def test_no_folder_for_temporary_files(
    tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    monkeypatch.setenv("NO_TEMPORARY_FOLDER", "1")
    add_hooks(monkeypatch)
    with ServedTogether(tmp_path, "--model-uri", tiny_models["llama"]) as served:
        served.wait_ready()
        assert served.complete() == 200
    faults.shows("F23", "no temporary folder: starts and answers")
    assert "Traceback" not in served.output
