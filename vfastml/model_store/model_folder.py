"""What a folder must hold to be a model."""

from __future__ import annotations

import json
from pathlib import Path

from vfastml.model_store.errors import ModelStoreError


def check_folder(folder: Path, name: str, *, with_weights: bool = True) -> Path:
    """That folder again. Raises ModelStoreError, with `name`, if its config or, where they are wanted, a part of its
    weights is missing."""
    if not folder.is_dir():
        raise ModelStoreError(f"There is no folder {name}: check the path given as the model uri.")
    if not (folder / "config.json").is_file():
        raise ModelStoreError(f"{name} is not a Hugging Face model: it has no config.json.")
    if with_weights and (missing := missing_weights(folder)):
        raise ModelStoreError(
            f"{name} lacks {missing}: choose a model with safetensors weights, "
            "because pickled ones (*.bin, *.pt) are never loaded."
        )
    return folder


def missing_weights(folder: Path) -> str | None:
    """What to look for when the folder has not all its safetensors files; None when it has."""
    if not (folder / "model.safetensors").is_file() and (index := folder / "model.safetensors.index.json").is_file():
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
        return next((shard for shard in sorted(shards) if not (folder / shard).is_file()), None)
    return None if any(folder.glob("*.safetensors")) else "*.safetensors"
