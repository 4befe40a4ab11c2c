"""What `stored_models` lists."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from vfastml.model_store.listing import ListedModel, stored_models

BUILTIN = "builtin:smollm2-135m-instruct"
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
WHOLE = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"123"}
SHARDED = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": INDEX,
    "model-1.safetensors": b"1",
}


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, hub_id: str, files: dict[str, bytes], *, revision: str = "a", kind: str = "models") -> None:
    """As the hub's library lays it out."""
    folder = cache / f"{kind}--{hub_id.replace('/', '--')}"
    snapshot, blobs = folder / "snapshots" / (revision * 40), folder / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir(exist_ok=True)
    for name, content in files.items():
        blob = blobs / f"{revision}{name}"
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)


def hub_models() -> list[ListedModel]:
    return [model for model in stored_models() if model.source == "hub"]


def test_builtin_model_that_is_cached(builtin_folder: Path) -> None:
    [model] = stored_models()
    assert (model.uri, model.source, model.state) == (BUILTIN, "built in", "cached")
    assert model.size_bytes is not None
    assert model.size_bytes > (builtin_folder / "model.safetensors").stat().st_size


def test_builtin_model_that_is_not(cache: Path) -> None:
    [model] = stored_models()
    assert (model.uri, model.state) == (BUILTIN, "to be downloaded")
    assert model.size_bytes is not None
    assert 80e6 < model.size_bytes < 100e6
    assert not cache.exists(), "looking changes nothing"


def test_whole_models_in_the_hubs_cache(hub_cache: Path) -> None:
    put(hub_cache, "org/whole", WHOLE)
    put(hub_cache, "org/sharded", SHARDED | {"model-2.safetensors": b"2"})
    assert [(model.uri, model.state) for model in hub_models()] == [("org/sharded", "cached"), ("org/whole", "cached")]
    assert hub_models()[1].size_bytes == sum(map(len, WHOLE.values()))


def test_what_cannot_be_loaded_is_not_listed(hub_cache: Path) -> None:
    put(hub_cache, "org/half-downloaded", SHARDED)
    put(hub_cache, "org/config-only", {"config.json": b"{}"})
    put(hub_cache, "org/no-tokenizer", {name: b"{}" for name in WHOLE if name != "tokenizer.json"})
    put(hub_cache, "org/texts", WHOLE, kind="datasets")
    assert hub_models() == []


def test_one_whole_revision_is_enough(hub_cache: Path) -> None:
    put(hub_cache, "org/name", SHARDED, revision="a")
    put(hub_cache, "org/name", WHOLE, revision="b")
    assert [model.uri for model in hub_models()] == ["org/name"]
