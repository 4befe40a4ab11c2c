"""Where tensors lie, for C."""

from __future__ import annotations

import ctypes

import torch

from vfastml.text_engine.cpu_kernels.structs import Cache
from vfastml.text_engine.kv_cache import KVCache


def address(tensor: torch.Tensor | None) -> int | None:
    """Of its first number; None for none."""
    return None if tensor is None else tensor.data_ptr()


def caches_of(cache: KVCache) -> ctypes.Array[Cache]:
    """Where each layer's keys and values lie."""
    pairs = zip(cache.keys, cache.values, strict=True)
    return (Cache * len(cache.keys))(*(Cache(keys.data_ptr(), values.data_ptr()) for keys, values in pairs))
