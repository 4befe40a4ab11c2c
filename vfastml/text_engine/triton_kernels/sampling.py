"""Tokens from logits, without sorting and without the host: three launches, whatever the rows ask for.

1. `_scan`, for each chunk of each row: its best token, noise included; of a row that is cut, its maximum and mass.
2. `_list_candidates`, for each chunk of each row that is cut: the tokens that may be kept.
3. `_choose`, for each row: the best of the chunks; of a row that is cut, it searches the cut among the candidates and
   takes the best of those that are kept.

A token is drawn as the largest of logits / temperature + Gumbel noise (gumbel.py). An infinite logit counts as the
largest finite one, and what is not a number as minus infinity.
"""

import torch
import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.candidates import (
    CAPACITY,
    CHUNK,
    ENTRY,
    TILE,
    coarse_kth,
    least_candidate,
    load_tile,
)
from vfastml.text_engine.triton_kernels.cutoff import least_kept
from vfastml.text_engine.triton_kernels.gumbel import gumbel_in_order, gumbel_of
from vfastml.text_engine.triton_kernels.ordered_floats import LARGEST
from vfastml.text_engine.triton_kernels.scaled_row import (
    first_best,
    has_top_k,
    is_cut,
    is_random,
    load_scaled,
    top_and_mass,
    weight,
)

_OF_ROWS = ["temperatures", "top_ks", "top_ps", "log_min_ps", "seeds"]
"""Views that begin anywhere; a kernel is not compiled anew for that."""


def sample_tokens(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    log_min_p: torch.Tensor,
    seeds: torch.Tensor,
    out: torch.Tensor,
) -> torch.Tensor:
    """Writes a token for each row of `logits` [S, vocab_size] (float32, bfloat16 or float16, each row contiguous) into
    `out` [S] int64.

    `temperature` [S] float32 (below 1e-5: the first of the largest logits), `top_k` [S] int32 (0: all), `top_p` [S]
    float32 (1: all), `log_min_p` [S] float32 (minus infinity: all) and `seeds` [S] int64 are contiguous. They may hold
    anything in rows that do not matter: those get tokens that exist, too. Returns the least logit / temperature that
    each row has kept, [S] float32; minus infinity where nothing was cut.
    """
    num_rows, vocab_size = logits.shape
    assert logits.stride(1) == 1 or vocab_size == 1
    cutoffs = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows == 0:
        return cutoffs
    num_chunks = triton.cdiv(vocab_size, CHUNK.value)
    stats = torch.empty(num_rows, 2, num_chunks, dtype=torch.float32, device=logits.device)
    found = torch.empty(num_rows, num_chunks, ENTRY.value, dtype=torch.int32, device=logits.device)
    rows = (logits, logits.stride(0), vocab_size, temperature, top_k, top_p, log_min_p, seeds, stats, found, num_chunks)
    CHUNKS = triton.next_power_of_2(num_chunks)
    _scan[(num_rows, num_chunks)](*rows, num_warps=8)
    _list_candidates[(num_rows, num_chunks)](*rows, CHUNKS, num_warps=8)
    _choose[(num_rows,)](*rows, out, cutoffs, CHUNKS, num_warps=16)
    return cutoffs


@triton.jit(do_not_specialize_on_alignment=_OF_ROWS)
def _scan(
    logits: tl.tensor,
    stride: tl.tensor,
    vocab_size: tl.tensor,
    temperatures: tl.tensor,
    top_ks: tl.tensor,
    top_ps: tl.tensor,
    log_min_ps: tl.tensor,
    seeds: tl.tensor,
    stats: tl.tensor,
    found: tl.tensor,
    num_chunks: tl.tensor,
) -> None:
    row, chunk = tl.program_id(0), tl.program_id(1)
    temperature = tl.load(temperatures + row)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    score = load_scaled(logits + row.to(tl.int64) * stride + token, token < vocab_size, temperature)
    chunk_stats = stats + row.to(tl.int64) * 2 * num_chunks + chunk
    if is_cut(temperature, tl.load(top_ks + row), tl.load(top_ps + row), tl.load(log_min_ps + row), vocab_size):
        top = tl.max(score, axis=0)
        tl.store(chunk_stats, top)
        tl.store(chunk_stats + num_chunks, tl.sum(weight(score, tl.maximum(top, -LARGEST)), axis=0))
    else:
        if is_random(temperature):
            score += gumbel_in_order(tl.load(seeds + row), chunk * CHUNK, CHUNK)
        best, best_token = first_best(score, token)
        tl.store(chunk_stats, best)
        tl.store(found + (row.to(tl.int64) * num_chunks + chunk) * ENTRY, best_token)


@triton.jit(do_not_specialize_on_alignment=_OF_ROWS)
def _list_candidates(
    logits: tl.tensor,
    stride: tl.tensor,
    vocab_size: tl.tensor,
    temperatures: tl.tensor,
    top_ks: tl.tensor,
    top_ps: tl.tensor,
    log_min_ps: tl.tensor,
    seeds: tl.tensor,
    stats: tl.tensor,
    found: tl.tensor,
    num_chunks: tl.tensor,
    CHUNKS: tl.constexpr,
) -> None:
    row, chunk = tl.program_id(0), tl.program_id(1)
    temperature, top_k, top_p = tl.load(temperatures + row), tl.load(top_ks + row), tl.load(top_ps + row)
    log_min_p = tl.load(log_min_ps + row)
    if is_cut(temperature, top_k, top_p, log_min_p, vocab_size):
        chunks = tl.arange(0, CHUNKS)
        row_stats = stats + row.to(tl.int64) * 2 * num_chunks + chunks
        top, mass = top_and_mass(row_stats, row_stats + num_chunks, chunks < num_chunks)
        token = chunk * CHUNK + tl.arange(0, CHUNK)
        value = load_scaled(logits + row.to(tl.int64) * stride + token, token < vocab_size, temperature)
        least = least_candidate(top, mass, top_k, top_p, log_min_p, vocab_size)
        if has_top_k(top_k, vocab_size) & (top_k <= CAPACITY):
            least = tl.maximum(least, coarse_kth(value, top_k))
        is_candidate = (value >= least) & (value > -float("inf"))
        listed = found + (row.to(tl.int64) * num_chunks + chunk) * ENTRY
        place = tl.cumsum(is_candidate.to(tl.int32), axis=0) - 1
        tl.store(listed + 1, tl.sum(is_candidate.to(tl.int32), axis=0))
        tl.store(listed + 2 + place, token, mask=is_candidate & (place < CAPACITY))


@triton.jit(do_not_specialize_on_alignment=[*_OF_ROWS, "tokens"])
def _choose(
    logits: tl.tensor,
    stride: tl.tensor,
    vocab_size: tl.tensor,
    temperatures: tl.tensor,
    top_ks: tl.tensor,
    top_ps: tl.tensor,
    log_min_ps: tl.tensor,
    seeds: tl.tensor,
    stats: tl.tensor,
    found: tl.tensor,
    num_chunks: tl.tensor,
    tokens: tl.tensor,
    cutoffs: tl.tensor,
    CHUNKS: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    temperature, top_k, top_p = tl.load(temperatures + row), tl.load(top_ks + row), tl.load(top_ps + row)
    log_min_p = tl.load(log_min_ps + row)
    chunks = tl.arange(0, CHUNKS)
    is_chunk = chunks < num_chunks
    row_stats = stats + row.to(tl.int64) * 2 * num_chunks + chunks
    row_found = found + row.to(tl.int64) * num_chunks * ENTRY
    row_logits = logits + row.to(tl.int64) * stride
    cutoff = -float("inf")
    if is_cut(temperature, top_k, top_p, log_min_p, vocab_size):
        top, mass = top_and_mass(row_stats, row_stats + num_chunks, is_chunk)
        most = tl.max(tl.load(row_found + chunks * ENTRY + 1, mask=is_chunk, other=0), axis=0)
        is_whole = most > CAPACITY
        turns = tl.cdiv(tl.where(is_whole, CHUNK, most), TILE // CHUNKS)
        tiles = (is_whole, row_logits, vocab_size, temperature, row_found, num_chunks)
        least = least_candidate(top, mass, top_k, top_p, log_min_p, vocab_size)
        cutoff = least_kept(top, mass, least, top_k, top_p, log_min_p, vocab_size, turns, tiles, CHUNKS)
        token = _best_kept(cutoff, tl.load(seeds + row), vocab_size, turns, tiles, CHUNKS)
    else:
        best = tl.load(row_stats, mask=is_chunk, other=-float("inf"))
        first = tl.load(row_found + chunks * ENTRY, mask=is_chunk, other=vocab_size)
        _, token = first_best(best, first)
    tl.store(tokens + row, tl.minimum(token, vocab_size - 1).to(tl.int64))
    tl.store(cutoffs + row, cutoff)


@triton.jit
def _best_kept(
    cutoff: tl.tensor,
    seed: tl.tensor,
    vocab_size: tl.tensor,
    turns: tl.tensor,
    tiles: tl.tuple,
    CHUNKS: tl.constexpr,
) -> tl.tensor:
    """The token of the largest noisy scaled logit that is not below `cutoff`; vocab_size if there is none."""
    best = -float("inf")
    best_token = vocab_size
    for turn in range(turns):
        value, token = load_tile(turn, tiles, CHUNKS)
        kept = (value >= cutoff) & (token < vocab_size)
        if tl.max(kept.to(tl.int32), axis=0) > 0:
            score, first = first_best(tl.where(kept, value + gumbel_of(seed, token), -float("inf")), token)
            best_token = tl.where((score > best) | ((score == best) & (first < best_token)), first, best_token)
            best = tl.maximum(best, score)
    return best_token
