"""Steps of random rows over a cache whose other places would show in the output if they were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.kind import SDPA, AttentionKind
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

CPU = torch.device("cpu")
Rows = Sequence[tuple[int, int]]
"""Of each row the tokens before this step, and those of it."""


def rows_of(block_size: int) -> dict[str, Rows]:
    """Rows of each kind, with contexts that end before, at and behind a block's end."""
    size = block_size
    return {
        "prefill": [(0, size + 7), (0, size), (0, 2)],
        "chunks": [(5, 6), (size, 4), (2 * size - 2, 3), (3, size)],
        "decode": [(0, 1), (size - 1, 1), (size, 1), (2 * size + 11, 1)],
        "mixed": [(5, 1), (0, 9), (size + 30, 1), (8, 5), (0, 1), (size - 1, 1)],
    }


@dataclass
class RandomStep:
    """One step of those rows, on a device."""

    rows: Rows
    block_size: int
    dtype: torch.dtype = torch.bfloat16
    num_heads: int = 6
    num_kv_heads: int = 2
    dim: int = 16
    device: torch.device = CPU

    def error(self, kind: AttentionKind, **options: float | int | None) -> float:
        """How far the output is from that of sdpa, relative to its norm."""
        asked = AttentionOptions(**{"scaling": self.dim**-0.5, **options})  # type: ignore[arg-type]
        output, expected = self.output(kind, asked), self.output(SDPA, asked)
        assert output.shape == expected.shape
        assert output.dtype == self.dtype
        return float((output.float() - expected.float()).norm() / expected.float().norm())

    def output(self, kind: AttentionKind, options: AttentionOptions) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(self.rows))

        def random(*size: int) -> torch.Tensor:
            return torch.randn(*size, generator=generator).to(self.device, self.dtype)

        spans = [(before, before + new) for before, new in self.rows]
        counts = [-(-end // self.block_size) for _, end in spans]
        order = torch.randperm(sum(counts) + 3, generator=generator).numpy()
        tables = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
        shape = KVShape(self.num_kv_heads, self.dim, self.dim)
        cache = KVCache([shape], len(order), self.block_size, self.dtype, self.device)
        for blocks in (cache.keys[0], cache.values[0]):
            blocks.fill_(6e4)
        for table, (before, _) in zip(tables, self.rows, strict=True):
            past = (random(before, self.num_kv_heads, self.dim) for _ in range(2))
            cache.write(0, self._slots(table, 0, before).to(self.device), *past)
        inputs = self._inputs(tables, spans)
        total = len(inputs.input_ids)
        # as a decoder has them: views of one tensor, whose heads are not contiguous
        qkv = random(total, self.num_heads + 2 * self.num_kv_heads, self.dim)
        query, key, value = qkv.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        backend = kind.on(cache)
        assert backend.name == kind.name
        return backend.forward(0, query, key, value, backend.prepare(inputs), options)

    def _inputs(self, tables: list[np.ndarray], spans: list[tuple[int, int]]) -> BatchInputs:
        slots = [self._slots(table, *span) for table, span in zip(tables, spans, strict=True)]
        positions = torch.cat([torch.arange(*span) for span in spans]).to(self.device)
        return BatchInputs(
            input_ids=torch.zeros_like(positions),
            position_ids=positions,
            slots=torch.cat(slots).to(self.device),
            logits_index=positions[:0],
            query_starts=np.cumsum([0, *(new for _, new in self.rows)], dtype=np.int32),
            context_lens=np.array([end for _, end in spans], dtype=np.int32),
            block_tables=np.concatenate(tables, dtype=np.int32, casting="unsafe"),
            block_starts=np.cumsum([0, *map(len, tables)], dtype=np.int32),
        )

    def _slots(self, table: np.ndarray, start: int, end: int) -> torch.Tensor:
        places = np.arange(start, end)
        return torch.from_numpy(table[places // self.block_size] * self.block_size + places % self.block_size)
