from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.package.environment import Environment, pip, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def source_files() -> list[Path]:
    """What a clone of the working tree would have, as paths from its root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    return sorted(Path(name) for name in set(names.split("\0")) if name and (ROOT / name).is_file())


@pytest.fixture(scope="session")
def source_tree(source_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree, without anything that git does not know of."""
    folder = tmp_path_factory.mktemp("source")
    for path in source_files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="session")
def wheel(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist, as `make wheel` does."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", dist, source_tree)
    [wheel] = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheelhouse(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and all that its extra `api` needs, in the tested versions."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    pip("wheel", "--quiet", "--wheel-dir", folder, "--constraint", ROOT / "requirements.txt", f"{wheel}[api]")
    return folder


@pytest.fixture(scope="session")
def api_environment(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install 'vfastml[api]'` gives."""
    folder = tmp_path_factory.mktemp("api")
    run(sys.executable, "-m", "venv", folder / "venv")
    environment = Environment(folder / "venv", cwd=folder)
    local = ["--no-index", "--find-links", wheelhouse]
    run(environment.python, "-m", "pip", "install", "--quiet", *local, "vfastml[api]")
    return environment
