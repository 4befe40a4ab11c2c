"""What can be told about the images without building them."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from prebuilt_apps.commands import COMMANDS, known_variables
from vfastml.text_engine.cpu_kernels import build
from vfastml.text_engine.cpu_kernels.levels import level_named

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "Dockerfile.api", ROOT / "Dockerfile.model"]
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.suffix[1:])
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def exec_form(text: str, instruction: str) -> list[str]:
    """Its program and arguments; there must be one such instruction, and no shell in it."""
    [found] = re.findall(rf"{instruction}\s+(\[.*\])$", text, re.MULTILINE)
    return json.loads(found)


def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    run = subprocess.run([HADOLINT, dockerfile], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_the_program_gets_the_signals_itself(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    program, command = exec_form(text, "ENTRYPOINT")
    assert program == "vfastml"
    assert command in {one.name for one in COMMANDS}
    assert exec_form(text, "CMD")[:2] == ["vfastml", "health"]
    assert "STOPSIGNAL SIGTERM" in text


def test_nobody_is_root_and_nothing_is_open_by_default(dockerfile: Path) -> None:
    last_stage = dockerfile.read_text().split("\nFROM ")[-1]
    assert re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE) == ["10001:10001"]
    instructions = [line for line in last_stage.splitlines() if not line.startswith("#")]
    assert not [line for line in instructions if re.search("insecure|key|token|secret", line, re.IGNORECASE)]


def test_variables_that_are_set_are_known(dockerfile: Path) -> None:
    found = set(re.findall(r"\b(VFASTML_[A-Z_]+)=", dockerfile.read_text()))
    assert found
    assert found <= known_variables()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are for x86-64")
def test_the_kernels_compile_from_what_their_stage_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [stage] = re.findall(r"^FROM python AS kernels$(.*?)^FROM ", DOCKERFILES[1].read_text(), re.MULTILINE | re.DOTALL)
    for source, target in re.findall(r"^COPY (\S+) (\S+)$", stage, re.MULTILINE):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / target)
        else:
            (tmp_path / target).mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / target)
    # -S: nothing but the standard library, as there.
    command = [sys.executable, "-S", "-m", "vfastml.text_engine.cpu_kernels", "--level", "avx2", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "out"))
    monkeypatch.setattr(build, "build", lambda _: pytest.fail("it is not found"))
    assert str(build.library(level_named("avx2"))) == str(tmp_path / done.stdout.strip())
