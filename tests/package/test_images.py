"""Both images, built and run as an operator would: another user than root, a read-only root, no capabilities."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import free_port, wait_until
from tests.package.container_tools import ContainerTools, why_not

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

BASE, API, MODEL = "localhost/vfastml-test-base", "localhost/vfastml-test-api", "localhost/vfastml-test-model"
KEY = "a-key-for-this-test"


@pytest.fixture(scope="module")
def tools(source_tree: Path) -> Iterator[ContainerTools]:
    """Both images, built from the working tree; takes some minutes and 4 GB of disk."""
    tools = ContainerTools(Path(tempfile.mkdtemp(prefix="vfastml-images-")))
    try:
        tools.make_base(BASE)
        tools.build(API, source_tree, "Dockerfile.api", BASE)
        tools.build(MODEL, source_tree, "Dockerfile.model", BASE)
        print(tools.podman("images", "--format", "{{.Repository}} {{.Size}}").stdout)
        yield tools
    finally:
        tools.close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "api-keys"
    path.write_text(f"{KEY}\n")
    path.chmod(0o444)
    return path


@pytest.fixture
def readable_model(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A tiny model that any user may read."""
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "tiny"))
    for path in folder.iterdir():
        path.chmod(0o444)
    return folder


@pytest.fixture
def model_endpoint(tools: ContainerTools, readable_model: Path) -> Iterator[str]:
    """A model server in a container, which must end well."""
    port = free_port()
    mounts = ["--tmpfs=/tmp", f"--volume={readable_model}:/models/tiny:ro", "--memory=2g"]
    variables = [f"--env=VFASTML_RPC_PORT_NUMBER={port}", "--env=VFASTML_MODEL_URI=/models/tiny"]
    tools.start("model", MODEL, "--insecure", "--kv-cache-memory", "20MB", options=[*mounts, *variables])
    wait_until(lambda: healthy(tools, "model", "--model-server"), 90, "the model server is ready")
    yield f"tcp://127.0.0.1:{port}"
    assert tools.stop("model") == 0


def healthy(tools: ContainerTools, name: str, *flags: str) -> bool:
    """What the image's own health check says."""
    return tools.podman("exec", name, "vfastml", "health", "--timeout", "4", *flags).returncode == 0


def gateway_options(port: int, model_endpoint: str) -> list[str]:
    variables = {"VFASTML_PORT_NUMBER": port, "VFASTML_MODEL_SERVER": model_endpoint}
    return ["--memory=256m", *(f"--env={name}={value}" for name, value in variables.items())]


def chat(port: int, **headers: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_a_chat_through_both_with_a_key(tools: ContainerTools, model_endpoint: str, key_file: Path) -> None:
    port = free_port()
    keys = [f"--volume={key_file}:/run/secrets/api-keys:ro", "--env=VFASTML_API_KEY_FILE=/run/secrets/api-keys"]
    tools.start("api", API, options=[*gateway_options(port, model_endpoint), *keys])
    wait_until(lambda: healthy(tools, "api"), 60, "the gateway is ready")
    answer = chat(port, Authorization=f"Bearer {KEY}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert chat(port).status_code == 401
    assert "uid=10001" in tools.podman("exec", "api", "id").stdout
    assert tools.podman("exec", "api", "touch", "/opt/written").returncode != 0
    assert KEY not in tools.podman("inspect", "api").stdout
    assert tools.stop("api") == 0


def test_without_keys_only_when_that_is_meant(tools: ContainerTools, model_endpoint: str) -> None:
    port = free_port()
    options = gateway_options(port, model_endpoint)
    status, output = tools.run_to_end(API, options=options)
    assert status == 1
    assert output.startswith("Refusing to listen on 0.0.0.0 without API keys")
    tools.start("open", API, "--insecure", options=options)
    wait_until(lambda: healthy(tools, "open"), 60, "the gateway is ready")
    assert chat(port).status_code == 200
    assert tools.stop("open") == 0


def test_the_model_server_too_has_to_be_told(tools: ContainerTools) -> None:
    status, output = tools.run_to_end(MODEL, options=["--tmpfs=/tmp"])
    assert status == 1
    assert "other machines can reach 0.0.0.0: give it --wire-keys" in output.splitlines()[-1]


def test_a_gateway_alone_is_not_healthy_and_still_stops_at_once(tools: ContainerTools) -> None:
    port = free_port()
    tools.start("alone", API, "--insecure", options=gateway_options(port, f"tcp://127.0.0.1:{free_port()}"))
    wait_until(lambda: "VFastML listens" in tools.podman("logs", "alone").stdout, 60, "the gateway listens")
    assert not healthy(tools, "alone")
    assert tools.stop("alone") == 0


def test_the_gateway_has_no_more_than_it_needs(tools: ContainerTools) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'pip') if u.find_spec(n)])"
    assert tools.run_to_end(API, "-c", code, options=["--entrypoint=python3"]) == (0, "[]\n")


def test_the_cache_can_be_written_and_the_rest_cannot(tools: ContainerTools) -> None:
    code = "touch /cache/x && test -d /cache && ! touch /opt/vfastml/x /tmp/x"
    status, output = tools.run_to_end(MODEL, "-c", code, options=["--entrypoint=sh", "--read-only-tmpfs=false"])
    assert status == 0, output


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are for x86-64")
def test_the_kernels_are_compiled_and_no_compiler_is_left(tools: ContainerTools) -> None:
    code = (
        "import ctypes, shutil\n"
        "from vfastml.text_engine.cpu_kernels.build import library\n"
        "from vfastml.text_engine.cpu_kernels.levels import LEVELS\n"
        "for level in LEVELS: ctypes.CDLL(str(library(level)))\n"
        "print([name for name in ('g++', 'gcc', 'c++', 'clang++') if shutil.which(name)])"
    )
    assert tools.run_to_end(MODEL, "-c", code, options=["--entrypoint=python3"]) == (0, "[]\n")
