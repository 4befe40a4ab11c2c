from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache; the path of its folder of models, which is made on first use."""
    monkeypatch.setenv("VFASTML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models-v1"
