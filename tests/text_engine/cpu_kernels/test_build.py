"""The kernels are compiled once, whole or not at all, and a machine that cannot have them hears why."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import NoKernels, build, levels
from vfastml.text_engine.cpu_kernels.__main__ import main
from vfastml.text_engine.cpu_kernels.levels import LEVELS, fitting_levels, level_named

needs_x86 = pytest.mark.skipif(not fitting_levels(), reason="kernels are for x86 with AVX2")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kernels"
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(folder))
    return folder


def compiler_that(folder: Path, does: str) -> str:
    """A program to be called instead of g++."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture(scope="module")
def copying() -> str:
    """What a compiler does, without its seconds: writes the library, which this machine has compiled before."""
    return f'while [ "$1" != -o ]; do shift; done; exec cp {build.library(level_named("avx2"))} "$2"'


@needs_x86
def test_compiled_once_and_found_again(
    own_folder: Path, tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = level_named("avx2")
    monkeypatch.setenv("CXX", compiler_that(tmp_path, copying))
    path = build.library(level)
    assert path.parent == own_folder
    monkeypatch.setenv("PATH", "")  # no compiler any more
    monkeypatch.delenv("CXX", raising=False)
    assert build.library(level) == path
    kernels = cpu_kernels.load("avx2")
    assert (kernels.level, kernels.name) == ("avx2", path.stem)
    assert [file.name for file in own_folder.iterdir()] == [path.name]


def test_without_a_compiler_it_says_what_to_install(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoKernels, match=r"install g\+\+"):
        cpu_kernels.load("avx2")


def test_a_compiler_that_fails_leaves_nothing(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler_that(tmp_path, "echo this is broken >&2; exit 1"))
    with pytest.raises(NoKernels, match="cannot compile the CPU kernels: this is broken"):
        cpu_kernels.load("avx2")
    assert list(own_folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(file / "below"))
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(NoKernels, match=build.FOLDER_VARIABLE):
        cpu_kernels.load("avx2")


def test_a_file_that_is_no_library(own_folder: Path) -> None:
    own_folder.mkdir(mode=0o700)
    (own_folder / build._name(level_named("avx2"))).write_bytes(b"nonsense")
    with pytest.raises(NoKernels, match="cannot be loaded"):
        cpu_kernels.load("avx2")


def test_a_processor_without_avx2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu sse2\n")
    monkeypatch.setattr(levels, "_CPUINFO", cpuinfo)
    with pytest.raises(NoKernels, match="AVX2"):
        cpu_kernels.load()
    monkeypatch.setattr(levels, "_CPUINFO", tmp_path / "absent")
    assert fitting_levels() == []


def test_the_best_level_is_the_first_that_has_all_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(levels, "_CPUINFO", cpuinfo)
    for level in LEVELS:
        cpuinfo.write_text(f"flags\t\t: {' '.join(level.needs)} sse2\n")
        assert fitting_levels()[0] == level


def test_an_unknown_level() -> None:
    with pytest.raises(ValueError, match="avx512bf16, avx512, avx2"):
        level_named("sse9")


@needs_x86
def test_the_next_level_where_the_compiler_does_not_know_the_best(
    own_folder: Path, tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = 'case "$*" in *avx512*) echo unknown option >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", compiler_that(tmp_path, f"{old}\n{copying}"))
    assert cpu_kernels.load().level == "avx2"


def test_a_library_that_others_could_have_put_there(own_folder: Path) -> None:
    own_folder.mkdir(mode=0o700)
    path = own_folder / build._name(level_named("avx2"))
    path.write_bytes(b"nonsense")
    path.chmod(0o666)
    with pytest.raises(NoKernels, match="others can write"):
        cpu_kernels.load("avx2")
    path.chmod(0o644)
    own_folder.chmod(0o777)
    with pytest.raises(NoKernels, match="others can write"):
        cpu_kernels.load("avx2")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (build.FOLDER_VARIABLE, "VFASTML_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(NoKernels, match=build.FOLDER_VARIABLE):
        cpu_kernels.load("avx2")


@needs_x86
def test_two_processes_compile_at_the_same_time(
    own_folder: Path, tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = f"touch {tmp_path}/$$.began; while [ $(ls {tmp_path}/*.began | wc -l) -lt 2 ]; do sleep 0.05; done"
    monkeypatch.setenv("CXX", compiler_that(tmp_path, f"{both}\n{copying}"))
    code = "from vfastml.text_engine import cpu_kernels; print(cpu_kernels.load('avx2').level)"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ["avx2", "avx2"]
    assert len(list(own_folder.iterdir())) == 1


@needs_x86
def test_ahead_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels that this machine does not have, too: without optimisations, which takes half the time."""
    made = tmp_path / "made"
    monkeypatch.setenv("CXX", compiler_that(tmp_path, 'exec g++ "$@" -O0'))
    assert main(["--level", "all", "--output", str(made)]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == sorted(made.iterdir())
    assert len(printed) == len(LEVELS)
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")
    assert main(["--level", "avx2", "--output", str(tmp_path / os.sep.join("ab"))]) == 1
    assert "g++" in capsys.readouterr().err
