"""Does a backend run here, and say the same as the reference? Asked once, before a model is given to it: what a package
or a version of torch lacks often shows only in a call."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch

from vfastml.text_engine.attention.interface import AttentionBackend, AttentionOptions
from vfastml.text_engine.attention.kind import SDPA, AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

_SOFTCAP = 20.0
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2}
_COARSEST = 3e-2
"""Of other dtypes, such as bfloat16. Relative, of the norm of a step's output."""


@torch.inference_mode()
def probe(kind: AttentionKind, needs: AttentionNeeds) -> None:
    """Runs a mixed and a decode step through it, for each shape of a layer and with a window too if the model has any.
    Raises NoAttention with the reason if that fails, or if the output is not that of `sdpa`."""
    size = kind.block_size
    mixed, decode = [(size + 3, 5), (0, 3), (size, 1)], [(size + 3, 1), (0, 1), (2 * size - 1, 1)]
    for shape in dict.fromkeys(needs.shapes):
        for rows in (mixed, decode):
            for window in (None, 4) if needs.has_windows else (None,):
                options = AttentionOptions(shape.key_dim**-0.5, window, _SOFTCAP if needs.softcaps else None)
                _compare(kind, needs, shape, rows, options)


def _compare(
    kind: AttentionKind,
    needs: AttentionNeeds,
    shape: KVShape,
    rows: Sequence[tuple[int, int]],
    options: AttentionOptions,
) -> None:
    inputs, num_blocks = _step(rows, kind.block_size, needs.device)
    expected = _output(SDPA, needs, shape, inputs, num_blocks, kind.block_size, options)
    try:
        output = _output(kind, needs, shape, inputs, num_blocks, kind.block_size, options)
        error = float((output - expected).norm() / expected.norm())
    except Exception as failure:  # of a package, of a compiler, of a driver
        why = textwrap.shorten(f"{type(failure).__name__}: {failure}", 200, placeholder=" ...")
        raise NoAttention(f"it fails here ({why})") from failure
    if not error <= _TOLERANCE.get(needs.dtype, _COARSEST):
        raise NoAttention(f"it computes something else than sdpa here (error {error:.1%})")


def _output(
    kind: AttentionKind,
    needs: AttentionNeeds,
    shape: KVShape,
    inputs: BatchInputs,
    num_blocks: int,
    block_size: int,
    options: AttentionOptions,
) -> torch.Tensor:
    """In float32, over a cache of random numbers, the same each time."""
    generator = torch.Generator().manual_seed(7)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).to(needs.device, needs.dtype)

    cache = KVCache([shape], num_blocks, block_size, needs.dtype, needs.device)
    for blocks in (cache.keys[0], cache.values[0]):
        blocks.copy_(random(*blocks.shape))
    count = len(inputs.input_ids)
    heads_per_kv = max(1, needs.num_heads // shape.num_heads)
    query = random(count, heads_per_kv * shape.num_heads, shape.key_dim)
    key, value = random(count, shape.num_heads, shape.key_dim), random(count, shape.num_heads, shape.value_dim)
    backend: AttentionBackend = kind.on(cache)
    return backend.forward(0, query, key, value, backend.prepare(inputs), options).float()


def _step(rows: Sequence[tuple[int, int]], block_size: int, device: torch.device) -> tuple[BatchInputs, int]:
    """Rows of (tokens before, new tokens), whose blocks lie in reverse order; and how many blocks there are."""
    spans = [(before, before + new) for before, new in rows]
    counts = [-(-end // block_size) for _, end in spans]
    block_starts = np.cumsum([0, *counts], dtype=np.int32)
    num_blocks = int(block_starts[-1])
    tables = np.arange(num_blocks - 1, -1, -1, dtype=np.int32)
    positions = [np.arange(*span) for span in spans]
    places = [
        tables[start + own // block_size].astype(np.int64) * block_size + own % block_size
        for start, own in zip(block_starts, positions, strict=False)
    ]
    tokens = torch.from_numpy(np.concatenate(positions)).to(device)
    inputs = BatchInputs(
        input_ids=torch.zeros_like(tokens),
        position_ids=tokens,
        slots=torch.from_numpy(np.concatenate(places)).to(device),
        logits_index=tokens[:0],
        query_starts=np.cumsum([0, *(new for _, new in rows)], dtype=np.int32),
        context_lens=np.array([end for _, end in spans], dtype=np.int32),
        block_tables=tables,
        block_starts=block_starts,
    )
    return inputs, num_blocks
