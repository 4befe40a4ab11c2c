"""Attention by torch's own varlen_attn, from the version on that takes block tables: FlashAttention-2 inside torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from vfastml.text_engine.attention.flash import PAGE_SIZE, check_flash_takes, window_of
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.kind import AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.attention.padded_attention import PaddedAttention
from vfastml.text_engine.attention.padded_step import PaddedStep
from vfastml.text_engine.kv_cache import KVCache

_MODULE = "torch.nn.attention.varlen"
_NEEDED = {"scale", "window_size", "enable_gqa", "seqused_k", "block_table", "num_splits"}


def varlen_attention(needs: AttentionNeeds) -> AttentionKind:
    """Raises NoAttention where torch, or the GPU, or the model does not allow for it."""
    check_flash_takes(needs)
    if needs.softcaps:
        raise NoAttention("it does not cap scores, as this model does")
    varlen_attn = _varlen_attn()
    return AttentionKind("varlen", PAGE_SIZE, lambda cache: VarlenAttention(cache, varlen_attn))


class VarlenAttention(PaddedAttention):
    """AttentionBackend by torch's varlen_attn, over blocks of a multiple of PAGE_SIZE tokens: the kernels under it are
    FlashAttention-2's."""

    name = "varlen"

    def __init__(self, cache: KVCache, varlen_attn: Callable[..., Any]) -> None:
        super().__init__(cache)
        self._varlen_attn = varlen_attn

    def attend(self, layer: int, query: torch.Tensor, meta: PaddedStep, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
        keys = self._cache.keys[layer]
        # A lone query, the last of its context, sees all of it: asked for without a mask, the kernel packs the heads
        # that share a KV head. Only then may it split long contexts: parts of rows of unequal length would not find
        # their places in the output.
        packs_heads = meta.max_query_len == 1 and options.sliding_window is None and query.shape[1] > keys.shape[2]
        window = (-1, -1) if packs_heads else (window_of(options)[0], 0)
        return self._varlen_attn(  # type: ignore[no-any-return]
            query,
            keys,
            self._cache.values[layer],
            meta.query_starts,
            meta.key_starts,
            meta.max_query_len,
            meta.max_context_len,
            scale=options.scaling,
            window_size=window,
            enable_gqa=True,
            seqused_k=meta.context_lens,
            block_table=meta.block_tables,
            num_splits=None if packs_heads else 1,
        )


def _varlen_attn() -> Callable[..., Any]:
    try:
        varlen_attn: Callable[..., Any] = import_module(_MODULE).varlen_attn
    except (ImportError, AttributeError) as error:
        raise NoAttention("this version of torch has no varlen_attn") from error
    lacking = _NEEDED - set(inspect.signature(varlen_attn).parameters)
    if lacking:
        raise NoAttention(f"varlen_attn of this version of torch has no {', '.join(sorted(lacking))}")
    if (active := _activated()) is not None:
        raise NoAttention(f"torch's own FlashAttention-2 has been replaced by {active}")
    return varlen_attn


def _activated() -> str | None:
    """Kernels of another package, which want other blocks and other arguments."""
    current = getattr(torch.nn.attention, "current_flash_attention_impl", None)
    return None if current is None else current()
