"""The calls of the flash packages as they are documented, in plain torch, with the checks that the real ones make.

flash_attn 2.8 (csrc/flash_attn/flash_api.cpp), flash_attn_interface of FlashAttention-3 (hopper/flash_api.cpp), and
torch.nn.attention.varlen of torch 2.13 (over FlashAttention-2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

Window = tuple[int, int]


@dataclass
class FakeFlash:
    """Keeps what it was called with, beside tensors."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def flash_attn_varlen_func(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: torch.Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """FlashAttention-2."""
        assert (dropout_p, alibi_slopes, return_attn_probs) == (0.0, None, False)
        assert softmax_scale is not None
        assert block_table is not None
        self.calls.append({"call": "varlen", "window_size": window_size, "max_seqlen_q": max_seqlen_q})
        _check_pages(q, k, v, block_table, page_of=256)
        query_lens, key_lens = _lengths(cu_seqlens_q, len(q)), _lengths(cu_seqlens_k)
        assert (max_seqlen_q, max_seqlen_k) == (max(query_lens), max(key_lens))
        return _packed(q, k, v, query_lens, key_lens, block_table, softmax_scale, causal, window_size, softcap)

    def flash_attn_with_kvcache(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        k: torch.Tensor | None = None,
        v: torch.Tensor | None = None,
        rotary_cos: torch.Tensor | None = None,
        rotary_sin: torch.Tensor | None = None,
        cache_seqlens: torch.Tensor | None = None,
        cache_batch_idx: torch.Tensor | None = None,
        cache_leftpad: torch.Tensor | None = None,
        block_table: torch.Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (-1, -1),
        softcap: float = 0.0,
        rotary_interleaved: bool = True,
        alibi_slopes: torch.Tensor | None = None,
        num_splits: int = 0,
        return_softmax_lse: bool = False,
    ) -> torch.Tensor:
        """FlashAttention-2."""
        assert softmax_scale is not None
        assert block_table is not None
        assert cache_seqlens is not None
        self.calls.append({"call": "with_kvcache", "window_size": window_size})
        rows, length = q.shape[:2]
        _check_pages(q.flatten(0, 1), k_cache, v_cache, block_table, page_of=256)
        key_lens = _used(cache_seqlens)
        output = _packed(
            q.flatten(0, 1),
            k_cache,
            v_cache,
            [length] * rows,
            key_lens,
            block_table,
            softmax_scale,
            causal,
            window_size,
            softcap,
        )
        return output.view(q.shape)


@dataclass
class FakeFlash3:
    """flash_attn_interface."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def flash_attn_with_kvcache(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        k: torch.Tensor | None = None,
        v: torch.Tensor | None = None,
        qv: torch.Tensor | None = None,
        rotary_cos: torch.Tensor | None = None,
        rotary_sin: torch.Tensor | None = None,
        cache_seqlens: torch.Tensor | None = None,
        cache_batch_idx: torch.Tensor | None = None,
        cache_leftpad: torch.Tensor | None = None,
        page_table: torch.Tensor | None = None,
        cu_seqlens_q: torch.Tensor | None = None,
        cu_seqlens_k_new: torch.Tensor | None = None,
        max_seqlen_q: int | None = None,
        rotary_seqlens: torch.Tensor | None = None,
        q_descale: torch.Tensor | None = None,
        k_descale: torch.Tensor | None = None,
        v_descale: torch.Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (-1, -1),
        attention_chunk: int = 0,
        softcap: float = 0.0,
        rotary_interleaved: bool = True,
        scheduler_metadata: torch.Tensor | None = None,
        num_splits: int = 0,
        pack_gqa: bool | None = None,
        sm_margin: int = 0,
        return_softmax_lse: bool = False,
    ) -> torch.Tensor:
        assert softmax_scale is not None
        assert page_table is not None
        assert cache_seqlens is not None
        assert cu_seqlens_q is not None
        self.calls.append({"call": "with_kvcache", "window_size": window_size, "max_seqlen_q": max_seqlen_q})
        _check_pages(q, k_cache, v_cache, page_table, page_of=1)
        query_lens, key_lens = _lengths(cu_seqlens_q, len(q)), _used(cache_seqlens)
        assert max_seqlen_q == max(query_lens)
        return _packed(
            q, k_cache, v_cache, query_lens, key_lens, page_table, softmax_scale, causal, window_size, softcap
        )


@dataclass
class FakeVarlen:
    """torch.nn.attention.varlen."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def varlen_attn(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor | None,
        max_q: int,
        max_k: int,
        *,
        return_aux: Any = None,
        scale: float | None = None,
        window_size: Window = (-1, -1),
        enable_gqa: bool = False,
        seqused_k: torch.Tensor | None = None,
        block_table: torch.Tensor | None = None,
        num_splits: int | None = None,
    ) -> torch.Tensor:
        """Without `num_splits` the kernel may split contexts, which is right only where it has packed the heads."""
        assert cu_seq_k is not None, "both or none of cu_seq_q and cu_seq_k"
        assert seqused_k is not None
        assert block_table is not None
        assert scale is not None
        self.calls.append({"window_size": window_size, "num_splits": num_splits})
        packs_heads = max_q == 1 and query.shape[1] > key.shape[2] and window_size == (-1, -1)
        assert packs_heads or num_splits == 1
        assert enable_gqa or query.shape[1] == key.shape[2]
        _check_pages(query, key, value, block_table, page_of=256)
        query_lens, key_lens = _lengths(cu_seq_q, len(query)), _used(seqused_k)
        assert (max_q, max_k) == (max(query_lens), max(key_lens))
        assert _lengths(cu_seq_k) == key_lens
        causal = window_size == (-1, 0)
        return _packed(query, key, value, query_lens, key_lens, block_table, scale, causal, window_size, 0.0)


def _check_pages(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_table: torch.Tensor, *, page_of: int) -> None:
    assert q.dtype in (torch.float16, torch.bfloat16), "only fp16 and bf16"
    assert q.dtype == k.dtype == v.dtype
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert k.shape == v.shape
    _, page_size, num_kv_heads, dim = k.shape
    assert page_size % page_of == 0, f"page size must be divisible by {page_of}"
    assert q.dim() == 3
    assert dim == q.shape[2] <= 256
    assert dim % 8 == 0
    assert q.shape[1] % num_kv_heads == 0
    assert (block_table.dtype, block_table.dim(), block_table.stride(-1)) == (torch.int32, 2, 1)


def _lengths(starts: torch.Tensor, total: int | None = None) -> list[int]:
    assert starts.dtype == torch.int32
    assert starts.is_contiguous()
    assert int(starts[0]) == 0
    assert total is None or int(starts[-1]) == total
    lengths: list[int] = starts.diff().tolist()
    return lengths


def _used(lengths: torch.Tensor) -> list[int]:
    assert lengths.dtype == torch.int32
    assert lengths.is_contiguous()
    return lengths.tolist()  # type: ignore[no-any-return]


def _packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_lens: list[int],
    key_lens: list[int],
    block_table: torch.Tensor,
    scale: float,
    causal: bool,
    window: Window,
    softcap: float,
) -> torch.Tensor:
    assert len(block_table) == len(query_lens) == len(key_lens)
    outputs = []
    for query, length, table in zip(q.split(query_lens), key_lens, block_table, strict=True):
        assert length <= block_table.shape[1] * k.shape[1]
        blocks = table[: -(-length // k.shape[1])].long()
        keys, values = (cache[blocks].flatten(0, 1)[:length].float() for cache in (k, v))
        outputs.append(_attend(query.float(), keys, values, scale, causal, window, softcap))
    return torch.cat(outputs).to(q.dtype)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool, window: Window, softcap: float
) -> torch.Tensor:
    """The causal triangle and the window are aligned to the last query and the last key."""
    k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    left, right = window[0], 0 if causal else window[1]
    places = torch.arange(len(q))[:, None] + len(k) - len(q)
    distance = places - torch.arange(len(k))
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if left >= 0:
        hidden |= distance > left
    if right >= 0:
        hidden |= distance < -right
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)
