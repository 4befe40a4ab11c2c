"""What an engine was asked for. What it settled on after measuring is a `Limits` (engine/dispatch_replies.py)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

BLOCK_SIZE = 16
"""Tokens in a KV block: small enough to waste little, large enough to keep block tables short."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class EngineConfig:
    """Never written after start. None means: decide from the model and the device."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    dtype: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`: of weights, activations and KV cache."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; default: what the model was made for, as far as the KV cache holds it."""
    max_num_seqs: int | None = None
    """Sequences in the running batch; default 64 on a CPU, 256 on a GPU."""
    max_num_batched_tokens: int | None = None
    """Tokens computed in one step; default 128 on a CPU (64 in float32) so that a step stays short, 8192 on a GPU."""
    kv_cache_memory: int | None = None
    """Bytes for the KV cache; default: a share of the memory that is free once the model is loaded."""
    enable_prefix_caching: bool = True


def parse_memory(text: str) -> int:
    """Bytes of `300MB`, `1GiB`, `1.5 GB` or a plain number. Raises ValueError that names the accepted forms."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError("expected a number of bytes, or a number with KB, MB, GB, KiB, MiB or GiB, such as 300MB")
    size = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if size <= 0:
        raise ValueError("memory must be more than zero")
    return size
