"""A kind of attention backend: what is chosen once for a model, before there is a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vfastml.text_engine.attention.interface import AttentionBackend
from vfastml.text_engine.attention.sdpa import SdpaAttention
from vfastml.text_engine.engine_config import BLOCK_SIZE
from vfastml.text_engine.kv_cache import KVCache, KVShape


@dataclass(frozen=True, slots=True)
class AttentionNeeds:
    """What a model asks of its attention."""

    device: torch.device
    dtype: torch.dtype
    num_heads: int
    """Of the queries, in the layer that has the most."""
    shapes: tuple[KVShape, ...]
    """Of its layers."""
    has_windows: bool = False
    """Whether a layer looks back only so far."""
    softcaps: bool = False
    """Whether a layer caps its scores."""


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """A backend without its cache."""

    name: str
    """As `--attention-backend` has it."""
    block_size: int
    """Tokens in a block of the cache that it reads. One that takes BLOCK_SIZE takes any power of two from 4."""
    on: Callable[[KVCache], AttentionBackend]
    """The backend over a cache of such blocks."""


AttentionChoice = Callable[[AttentionNeeds], AttentionKind]

SDPA = AttentionKind("sdpa", BLOCK_SIZE, SdpaAttention)


class NoAttention(Exception):
    """A backend cannot be had; the message says why, in a few words."""
