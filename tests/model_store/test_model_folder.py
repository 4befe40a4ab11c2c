from __future__ import annotations

import json
from pathlib import Path

import pytest

from vfastml.model_store import ModelStoreError, StoredModel, resolve_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "my-model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_a_local_folder_is_used_in_place(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    assert resolve_model(str(folder)) == StoredModel(folder, "my-model", str(folder))


def test_a_relative_folder_becomes_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(folder.parent)
    assert resolve_model("./my-model").folder == folder


def test_without_config_it_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelStoreError, match=r"no config\.json"):
        resolve_model(str(folder))


@pytest.mark.rule("S9")
def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelStoreError, match=r"safetensors.*pickled ones.* are never loaded"):
        resolve_model(str(folder))


def test_a_missing_shard_is_named(folder: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    (folder / shards[0]).write_bytes(b"")
    with pytest.raises(ModelStoreError, match=f"lacks {shards[1]}"):
        resolve_model(str(folder))
    (folder / shards[1]).write_bytes(b"")
    assert resolve_model(str(folder)).folder == folder


def test_weights_that_are_not_wanted_may_be_missing(folder: Path) -> None:
    assert resolve_model(str(folder), with_weights=False).folder == folder
    (folder / "config.json").unlink()
    with pytest.raises(ModelStoreError, match=r"no config\.json"):
        resolve_model(str(folder), with_weights=False)
