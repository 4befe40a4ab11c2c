"""The wheel, installed in an environment without torch, serves as a gateway."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import vfastml
from tests.e2e.service import Service
from tests.package.environment import Environment

pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]

HEAVY = {"torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy"}


def test_it_holds_the_two_packages_and_nothing_else(wheel: Path, source_files: list[Path]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    about = f"vfastml-{vfastml.__version__}.dist-info"
    packaged = {str(path) for path in source_files if path.parts[0] in {"vfastml", "prebuilt_apps"}}
    assert {name for name in names if not name.startswith(f"{about}/")} == packaged
    assert {f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} <= names
    assert {"vfastml/py.typed", "prebuilt_apps/py.typed"} <= packaged


def test_it_says_its_version(api_environment: Environment) -> None:
    assert api_environment.run("vfastml", "--version").stdout.split()[-1] == vfastml.__version__


def test_nothing_of_a_model_server_is_installed(api_environment: Environment) -> None:
    listed = json.loads(api_environment.run("python", "-m", "pip", "list", "--format", "json").stdout)
    installed = {package["name"].lower() for package in listed}
    assert {"vfastml", "fastapi", "pyzmq"} <= installed
    assert not HEAVY & installed
    assert not [name for name in installed if name.startswith("nvidia")]


def test_the_model_server_says_what_to_install(api_environment: Environment) -> None:
    run = api_environment.run("vfastml", "model-server")
    assert run.returncode == 1
    assert "vfastml[model]" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


@pytest.fixture
def service(
    tiny_models: dict[str, Path], api_environment: Environment, tmp_path: Path
) -> Iterator[tuple[Service, Environment]]:
    """A model server of this environment behind a gateway of the other one."""
    service = Service(tmp_path, ["--model-uri", str(tiny_models["llama"]), "--kv-cache-memory", "20MB"])
    flags = ["--port", service.port, "--model-server", f"tcp://127.0.0.1:{service.rpc_port}"]
    try:
        service.gateway = api_environment.start("vfastml", "api-server", *flags, log=tmp_path / "gateway.log")
        service.start_model_server()
        service.wait_ready()
        yield service, api_environment
    finally:
        service.stop()


def test_it_answers_without_torch(service: tuple[Service, Environment]) -> None:
    running, environment = service
    answer = running.chat(model="llama", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert running.gateway is not None
    maps = Path(f"/proc/{running.gateway.pid}/maps").read_text()
    assert str(environment.folder) in maps
    assert not [line for line in maps.splitlines() if any(f"/{name}" in line for name in HEAVY)]
    assert environment.run("vfastml", "health", "--url", running.url).returncode == 0
    running.gateway.terminate()
    assert running.gateway.wait(20) == 0
    assert environment.run("vfastml", "health", "--url", running.url).returncode == 1
