"""The safetensors files of a model, mapped into memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from vfastml.text_engine.decoders.llama_shape import NotFusable


class TensorFiles:
    """The safetensors files of one model: a TensorSource."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Maps the files; raises NotFusable for a file that is not of torch."""
        self._where: dict[str, tuple[Path, Any]] = {}
        for path in paths:
            file: Any = safe_open(path, framework="pt")
            if (file.metadata() or {}).get("format", "pt") != "pt":
                raise NotFusable("its weights were not saved by torch")
            self._where.update(dict.fromkeys(file.keys(), (path, file)))
        self.names = set(self._where)

    @classmethod
    def of(cls, folder: Path) -> TensorFiles:
        """`model.safetensors`, or else the shards that its index names. Raises NotFusable if there is neither."""
        single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        if single.is_file():
            return cls([single])
        if not index.is_file():
            raise NotFusable("it has no model.safetensors")
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if any(Path(shard).name != shard or not (folder / shard).is_file() for shard in shards):
            raise NotFusable("its index names files that are not beside it")
        return cls(folder / shard for shard in shards)

    def kind(self, name: str) -> tuple[str, list[int]]:
        """See TensorSource."""
        found = self._where[name][1].get_slice(name)
        return found.get_dtype(), found.get_shape()

    def read(self, name: str) -> torch.Tensor:
        """A view of the mapped file."""
        tensor: torch.Tensor = self._where[name][1].get_tensor(name)
        return tensor

    def read_mapped(self, name: str) -> torch.Tensor:
        """The same in a mapping of its own, which does not hold what else was read of the file in memory."""
        own: Any = safe_open(self._where[name][0], framework="pt")
        tensor: torch.Tensor = own.get_tensor(name)
        return tensor
