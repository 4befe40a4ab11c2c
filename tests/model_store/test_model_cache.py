from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfastml.model_store import ModelStoreError
from vfastml.model_store.cache import build_once, cache_root

SLOW_BUILD = """
import sys, time
from pathlib import Path
from vfastml.model_store.cache import build_once

def build(folder):
    (folder / "half").write_text("x")
    print("building", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "whole").write_text("x")

folder = build_once("model", build, lambda phase, fraction: print(phase, flush=True))
print(sorted(path.name for path in folder.iterdir()))
"""


def start_build(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(seconds)], stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write_file(folder: Path) -> None:
    (folder / "whole").write_text("x")


def never(folder: Path) -> None:
    raise AssertionError("built twice")


def test_the_root_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("VFASTML_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path("/home/x/.cache/vfastml")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/vfastml")
    monkeypatch.setenv("VFASTML_CACHE", "~/mine")
    assert cache_root() == Path("/home/x/mine")


def test_a_model_is_built_once(cache: Path) -> None:
    folder = build_once("model", write_file)
    assert folder == cache / "model"
    assert (folder / "whole").is_file()
    assert build_once("model", never) == folder


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(cache: Path) -> None:
    def fail(folder: Path) -> None:
        write_file(folder)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_once("model", fail)
    assert [path.name for path in cache.iterdir()] == [".model.lock"]
    assert (build_once("model", write_file) / "whole").is_file()


def test_a_killed_build_is_swept_away_by_the_next(cache: Path) -> None:
    killed = start_build(60)
    assert first_line(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    assert not (cache / "model").exists()
    assert len(list(cache.glob(".model.*.partial"))) == 1

    folder = build_once("model", write_file)

    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not list(cache.glob(".model.*.partial"))


def test_of_two_processes_one_builds_and_the_other_waits(cache: Path) -> None:
    builder = start_build(1.5)
    assert first_line(builder) == "building"
    waiter = start_build(0)
    said = [first_line(waiter), *[process.communicate(timeout=20)[0].strip() for process in (builder, waiter)]]
    assert said == ["waiting for another process that prepares the model", "['half', 'whole']", "['half', 'whole']"]


def test_a_waiter_takes_over_from_a_killed_builder(cache: Path) -> None:
    builder = start_build(60)
    assert first_line(builder) == "building"
    waiter = start_build(0)
    assert first_line(waiter).startswith("waiting")
    builder.kill()
    started = time.monotonic()
    assert waiter.communicate(timeout=20)[0].split("\n")[:2] == ["building", "['half', 'whole']"]
    assert time.monotonic() - started < 10
    builder.communicate(timeout=10)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_closed_disk_is_told_in_one_sentence(cache: Path, code: int) -> None:
    def fail(folder: Path) -> None:
        raise OSError(code, "from below")

    with pytest.raises(ModelStoreError, match=r"cannot be written \(.*free some space there, or set VFASTML_CACHE"):
        build_once("model", fail)


def test_a_cache_that_cannot_be_a_folder_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFASTML_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelStoreError, match=r"cannot be written \(Not a directory\)"):
        build_once("model", never)
