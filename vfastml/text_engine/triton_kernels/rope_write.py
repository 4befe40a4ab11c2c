"""Between the QKV product and attention, in one launch: the norm that was left out before the product, bias, the norms
of queries and keys, RoPE, and the write into the KV cache.

The product is of the residual itself, with the norm's weight folded into the matrix: a row's 1 / rms is one number, and
can as well be applied behind the product. So no launch is needed for a norm.

A program has one token and takes blocks of its heads. In decode a few tokens are to fill the card, so several programs
share a token, and each reads its residual again (8 KiB out of the L2 cache for 4096 in 16 bits). In prefill there is
one for each token, which reads it once and goes through the heads in larger blocks, 16 bytes a thread. Each block is
asked for before the work that comes before it, the norm or the last block, so that no program waits for memory twice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.row_norm import inverse_rms, programs_per_row, row_block

_BLOCK, _BLOCK_OF_MANY_ROWS = 512, 2048
"""Numbers that a program takes at once, about."""
_MANY_ROWS = 512


def rope_write(
    qkv: torch.Tensor,
    x: torch.Tensor,
    *,
    position_ids: torch.Tensor,
    slots: torch.Tensor,
    angles: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    eps: float,
    bias: torch.Tensor | None = None,
    head_norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns queries [T, heads, dim] after RoPE, and stores keys and values.

    `qkv` [T, (heads + 2 * KV heads) * dim] is the product of `x` [T, hidden], which is not normed; `bias` is added once
    it is; `head_norms` [2, dim] are the weights of the norms of queries and of keys. `angles` are those of
    `rope_angles`, in which position_ids [T] are looked up. `keys` and `values` [blocks, block size, KV heads, dim] are
    written at `slots` [T]; a token whose slot is negative is not, and what is not finite is stored as zero. The queries
    have the cache's dtype; everything is contiguous, and computed in float32.
    """
    num_tokens, (num_kv_heads, dim) = len(x), keys.shape[-2:]
    num_heads = qkv.shape[1] // dim - 2 * num_kv_heads
    queries = torch.empty((num_tokens, num_heads, dim), dtype=keys.dtype, device=x.device)
    block_half = int(triton.next_power_of_2(dim // 2))
    block = _BLOCK if num_tokens < _MANY_ROWS else _BLOCK_OF_MANY_ROWS
    block_heads = max(1, block // (2 * block_half))
    num_blocks = -(-(num_heads + 2 * num_kv_heads) // block_heads)
    _rope_write_kernel[(num_tokens, programs_per_row(num_tokens, num_blocks))](
        qkv,
        x,
        bias,
        head_norms,
        angles,
        position_ids,
        slots,
        queries,
        keys,
        values,
        eps,
        HIDDEN=x.shape[1],
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        DIM=dim,
        BLOCK_HIDDEN=row_block(x.shape[1]),
        BLOCK_HEADS=block_heads,
        BLOCK_HALF=block_half,
    )
    return queries


@triton.jit
def _load_heads(qkv_ptr, token, heads, pairs, inside, DIM: tl.constexpr, TOTAL: tl.constexpr):
    """The halves of some heads that RoPE turns against each other."""
    places = qkv_ptr + token * (TOTAL * DIM) + heads[:, None] * DIM + pairs[None, :]
    low = tl.load(places, mask=inside, other=0.0)
    high = tl.load(places + DIM // 2, mask=inside, other=0.0)
    return low, high


@triton.jit
def _normed_heads(low, high, head_norms_ptr, is_key, is_value, pairs, inside, eps, DIM: tl.constexpr):
    """Queries and keys normed, each kind by its own weights; values as they are."""
    scale = tl.rsqrt((tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)) / DIM + eps)
    weights = head_norms_ptr + tl.where(is_key, DIM, 0)[:, None] + pairs[None, :]
    normed_low = low * scale[:, None] * tl.load(weights, mask=inside, other=0.0).to(tl.float32)
    normed_high = high * scale[:, None] * tl.load(weights + DIM // 2, mask=inside, other=0.0).to(tl.float32)
    return tl.where(is_value[:, None], low, normed_low), tl.where(is_value[:, None], high, normed_high)


@triton.jit
def _store_finite(places, numbers, mask):
    """What the cache's dtype makes infinite is asked for after the rounding."""
    rounded = numbers.to(places.dtype.element_ty)
    tl.store(places, tl.where(tl.abs(rounded.to(tl.float32)) < float("inf"), rounded, 0.0), mask=mask)


@triton.jit
def _finish_heads(
    low,
    high,
    scale,
    bias_ptr,
    head_norms_ptr,
    cosine,
    sine,
    queries_ptr,
    keys_ptr,
    values_ptr,
    token,
    slot,
    heads,
    pairs,
    inside,
    eps,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
):
    is_key = (heads >= NUM_HEADS) & (heads < NUM_HEADS + NUM_KV_HEADS)
    is_value = heads >= NUM_HEADS + NUM_KV_HEADS
    low = low.to(tl.float32) * scale
    high = high.to(tl.float32) * scale
    if bias_ptr is not None:
        biases = bias_ptr + heads[:, None] * DIM + pairs[None, :]
        low += tl.load(biases, mask=inside, other=0.0).to(tl.float32)
        high += tl.load(biases + DIM // 2, mask=inside, other=0.0).to(tl.float32)
    if head_norms_ptr is not None:
        low, high = _normed_heads(low, high, head_norms_ptr, is_key, is_value, pairs, inside, eps, DIM)
    first = tl.where(is_value[:, None], low, low * cosine[None, :] - high * sine[None, :])
    second = tl.where(is_value[:, None], high, high * cosine[None, :] + low * sine[None, :])

    query_places = queries_ptr + token * (NUM_HEADS * DIM) + heads[:, None] * DIM + pairs[None, :]
    query_mask = inside & (heads < NUM_HEADS)[:, None]
    tl.store(query_places, first.to(queries_ptr.dtype.element_ty), mask=query_mask)
    tl.store(query_places + DIM // 2, second.to(queries_ptr.dtype.element_ty), mask=query_mask)

    cache_row = slot * (NUM_KV_HEADS * DIM)
    key_places = keys_ptr + cache_row + (heads - NUM_HEADS)[:, None] * DIM + pairs[None, :]
    key_mask = inside & (is_key & (slot >= 0))[:, None]
    _store_finite(key_places, first, key_mask)
    _store_finite(key_places + DIM // 2, second, key_mask)

    value_places = values_ptr + cache_row + (heads - NUM_HEADS - NUM_KV_HEADS)[:, None] * DIM + pairs[None, :]
    value_mask = inside & (is_value & (slot >= 0))[:, None]
    _store_finite(value_places, first, value_mask)
    _store_finite(value_places + DIM // 2, second, value_mask)


# Parts of a step's one input tensor begin anywhere: a kernel for each way they may be aligned would be compiled midway.
@triton.jit(do_not_specialize_on_alignment=["position_ids_ptr", "slots_ptr"])
def _rope_write_kernel(
    qkv_ptr,
    x_ptr,
    bias_ptr,
    head_norms_ptr,
    angles_ptr,
    position_ids_ptr,
    slots_ptr,
    queries_ptr,
    keys_ptr,
    values_ptr,
    eps,
    HIDDEN: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    TOTAL: tl.constexpr = NUM_HEADS + 2 * NUM_KV_HEADS
    HALF: tl.constexpr = DIM // 2
    token = tl.program_id(0).to(tl.int64)
    stride = tl.num_programs(1) * BLOCK_HEADS
    own_heads = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    pairs = tl.arange(0, BLOCK_HALF)
    is_pair = pairs < HALF
    inside = (own_heads < TOTAL)[:, None] & is_pair[None, :]
    low, high = _load_heads(qkv_ptr, token, own_heads, pairs, inside, DIM, TOTAL)
    slot = tl.load(slots_ptr + token)
    own_angles = angles_ptr + tl.load(position_ids_ptr + token) * DIM + pairs
    cosine = tl.load(own_angles, mask=is_pair, other=0.0)
    sine = tl.load(own_angles + HALF, mask=is_pair, other=0.0)
    scale = inverse_rms(x_ptr, token, eps, HIDDEN, BLOCK_HIDDEN)
    for start in range(0, TOTAL, stride):
        heads = start + own_heads
        inside = (heads < TOTAL)[:, None] & is_pair[None, :]
        next_inside = (heads + stride < TOTAL)[:, None] & is_pair[None, :]
        next_low, next_high = _load_heads(qkv_ptr, token, heads + stride, pairs, next_inside, DIM, TOTAL)
        _finish_heads(
            low,
            high,
            scale,
            bias_ptr,
            head_norms_ptr,
            cosine,
            sine,
            queries_ptr,
            keys_ptr,
            values_ptr,
            token,
            slot,
            heads,
            pairs,
            inside,
            eps,
            NUM_HEADS,
            NUM_KV_HEADS,
            DIM,
        )
        low, high = next_low, next_high


def rope_write_reference(
    qkv: torch.Tensor,
    x: torch.Tensor,
    *,
    position_ids: torch.Tensor,
    slots: torch.Tensor,
    angles: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    eps: float,
    bias: torch.Tensor | None = None,
    head_norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same in torch."""
    num_kv_heads, dim = keys.shape[-2:]
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    heads = qkv.float() * scale if bias is None else qkv.float() * scale + bias.float()
    query, key, value = heads.view(len(x), -1, dim).split(
        [qkv.shape[1] // dim - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1
    )
    if head_norms is not None:
        query, key = (
            torch.nn.functional.rms_norm(part, (dim,), weight.float(), eps)
            for part, weight in zip((query, key), head_norms, strict=True)
        )
    cosine, sine = angles[position_ids].unbind(1)
    written = slots >= 0
    for cache, part in ((keys, _turned(key, cosine, sine)), (values, value)):
        stored = part.to(cache.dtype).nan_to_num(0.0, 0.0, 0.0)
        cache.flatten(0, 1)[slots[written]] = stored[written]
    return _turned(query, cosine, sine).to(keys.dtype)


def _turned(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = heads.chunk(2, dim=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    return torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1)
