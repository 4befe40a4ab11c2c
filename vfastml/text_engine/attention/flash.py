"""Attention by the packages flash_attn (FlashAttention-2) and flash_attn_interface (FlashAttention-3), where one is
installed: https://github.com/Dao-AILab/flash-attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.kind import AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.attention.padded_attention import PaddedAttention
from vfastml.text_engine.attention.padded_step import PaddedStep
from vfastml.text_engine.engine_config import BLOCK_SIZE
from vfastml.text_engine.kv_cache import KVCache

PAGE_SIZE = 256
"""Tokens in a block: FlashAttention-2 takes multiples of it alone."""
_HOPPER = 9
Call = Callable[..., Any]


def flash_attention(needs: AttentionNeeds) -> AttentionKind:
    """FlashAttention-3 where it is installed and the GPU is a Hopper, else FlashAttention-2. Raises NoAttention."""
    check_flash_takes(needs)
    try:
        return _third(needs)
    except NoAttention as third:
        try:
            return _second()
        except NoAttention as second:
            raise NoAttention(f"{second}, and {third}") from None


def check_flash_takes(needs: AttentionNeeds) -> None:
    """Raises NoAttention for what no flash kernel computes with."""
    if needs.device.type != "cuda":
        raise NoAttention(f"it does not run on {needs.device.type}")
    if torch.cuda.get_device_capability(needs.device) < (8, 0):
        raise NoAttention("the GPU is older than Ampere")
    if needs.dtype not in (torch.float16, torch.bfloat16):
        raise NoAttention(f"it does not compute in {str(needs.dtype).removeprefix('torch.')}")
    for shape in needs.shapes:
        if shape.device not in (None, needs.device):
            raise NoAttention("the model is spread over several devices")
        if shape.key_dim != shape.value_dim or shape.key_dim % 8 or shape.key_dim > 256:
            raise NoAttention(f"it takes no heads of {shape.key_dim} numbers in keys and {shape.value_dim} in values")


class FlashAttention2(PaddedAttention):
    """AttentionBackend by flash_attn, over blocks of a multiple of PAGE_SIZE tokens."""

    name = "flash"

    def __init__(self, cache: KVCache, varlen: Call, with_kvcache: Call) -> None:
        super().__init__(cache)
        self._varlen = varlen
        self._with_kvcache = with_kvcache

    def attend(self, layer: int, query: torch.Tensor, meta: PaddedStep, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        asked = {"block_table": meta.block_tables, **_options(options)}
        if meta.max_query_len == 1:  # only this call splits long contexts among the GPU's processors
            output = self._with_kvcache(query[:, None], keys, values, cache_seqlens=meta.context_lens, **asked)
            return output[:, 0]  # type: ignore[no-any-return]
        return self._varlen(  # type: ignore[no-any-return]
            query,
            keys,
            values,
            cu_seqlens_q=meta.query_starts,
            cu_seqlens_k=meta.key_starts,
            max_seqlen_q=meta.max_query_len,
            max_seqlen_k=meta.max_context_len,
            **asked,
        )


class FlashAttention3(PaddedAttention):
    """AttentionBackend by flash_attn_interface, over blocks of any size."""

    name = "flash"

    def __init__(self, cache: KVCache, with_kvcache: Call) -> None:
        super().__init__(cache)
        self._with_kvcache = with_kvcache

    def attend(self, layer: int, query: torch.Tensor, meta: PaddedStep, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
        return self._with_kvcache(  # type: ignore[no-any-return]
            query,
            self._cache.keys[layer],
            self._cache.values[layer],
            cache_seqlens=meta.context_lens,
            page_table=meta.block_tables,
            cu_seqlens_q=meta.query_starts,
            max_seqlen_q=meta.max_query_len,
            **_options(options),
        )


def window_of(options: AttentionOptions) -> tuple[int, int]:
    """How many keys before and after its own place a query sees; -1: all."""
    return (-1, -1) if options.sliding_window is None else (options.sliding_window - 1, 0)


def _options(options: AttentionOptions) -> dict[str, Any]:
    """Queries are the last of their contexts: both packages align the causal triangle to that corner."""
    return {
        "softmax_scale": options.scaling,
        "causal": True,
        "window_size": window_of(options),
        "softcap": options.softcap or 0.0,
    }


def _second() -> AttentionKind:
    package = "flash_attn"
    needed = {"block_table", "softmax_scale", "causal", "window_size", "softcap"}
    varlen = _function(package, "flash_attn_varlen_func", needed | {"cu_seqlens_q", "cu_seqlens_k"})
    with_kvcache = _function(package, "flash_attn_with_kvcache", needed | {"cache_seqlens"})
    return AttentionKind("flash", PAGE_SIZE, lambda cache: FlashAttention2(cache, varlen, with_kvcache))


def _third(needs: AttentionNeeds) -> AttentionKind:
    if torch.cuda.get_device_capability(needs.device)[0] != _HOPPER:
        raise NoAttention("FlashAttention-3 needs a Hopper")
    needed = {"page_table", "cache_seqlens", "cu_seqlens_q", "max_seqlen_q", "window_size", "softcap"}
    with_kvcache = _function("flash_attn_interface", "flash_attn_with_kvcache", needed)
    return AttentionKind("flash", BLOCK_SIZE, lambda cache: FlashAttention3(cache, with_kvcache))


def _function(package: str, name: str, needed: set[str]) -> Call:
    """Raises NoAttention for a package that is not there, does not load (each is built for one version of torch), or is
    too old. One called flash_attn may also hold something else: FlashAttention-4 lies in there too."""
    try:
        function = getattr(import_module(package), name, None)
    except ModuleNotFoundError as error:
        missing = "is not installed" if error.name == package else f"needs {error.name}"
        raise NoAttention(f"the package {package} {missing}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise NoAttention(f"the package {package} does not load ({error})") from error
    if function is None:
        raise NoAttention(f"the package {package} has no {name}")
    lacking = needed - set(inspect.signature(function).parameters)
    if lacking:
        raise NoAttention(f"{name} of this version of {package} has no {', '.join(sorted(lacking))}")
    return function  # type: ignore[no-any-return]
