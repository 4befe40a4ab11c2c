"""A step over a paged cache whose every number that may not be read is NaN, and what attention makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.sdpa import SdpaAttention
from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

TOLERANCES = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
SPARE_BLOCKS = 5
CPU = torch.device("cpu")


@dataclass
class PagedStep:
    """Rows of (tokens before this step, tokens of this step), with random blocks, keys, values and queries."""

    lengths: list[tuple[int, int]]
    num_heads: int = 3
    num_kv_heads: int = 1
    key_dim: int = 64
    value_dim: int = 0
    """0: as key_dim."""
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    seed: int = 0
    cache: KVCache = field(init=False)
    """On `device`: NaN in all blocks that no row has, and in the tails of the last ones of each row."""

    reference: KVCache = field(init=False)
    """The same on the CPU and in float32, but zero there."""

    def __post_init__(self) -> None:
        self.value_dim = self.value_dim or self.key_dim
        self._random = torch.Generator().manual_seed(self.seed)
        self.tables = self._random_tables()
        self.reference = self._new_cache(torch.float32, CPU)
        self.cache = self._new_cache(self.dtype, self.device)
        written = np.concatenate([self._slots(row, 0, before) for row, (before, _) in enumerate(self.lengths)])
        slots = torch.from_numpy(written)
        for reference, cache in self._layers():
            cache.fill_(torch.nan)
            numbers = self._numbers(len(slots), *cache.shape[2:])
            reference.flatten(0, 1)[slots] = numbers.float()
            cache.flatten(0, 1)[slots.to(self.device)] = numbers.to(self.device)
        num_tokens = sum(new for _, new in self.lengths)
        self.query = self._numbers(num_tokens, self.num_heads, self.key_dim)
        self.key = self._numbers(num_tokens, self.num_kv_heads, self.key_dim)
        self.value = self._numbers(num_tokens, self.num_kv_heads, self.value_dim)

    def inputs(self, device: torch.device | None = None) -> BatchInputs:
        """As the runner would make them."""
        device = device or self.device
        spans = [(before, before + new) for before, new in self.lengths]
        slots = np.concatenate([self._slots(row, *span) for row, span in enumerate(spans)])
        return BatchInputs(
            input_ids=torch.zeros(len(slots), dtype=torch.int64, device=device),
            position_ids=torch.cat([torch.arange(*span, device=device) for span in spans]),
            slots=torch.from_numpy(slots).to(device),
            logits_index=torch.zeros(0, dtype=torch.int64, device=device),
            query_starts=np.cumsum([0, *(new for _, new in self.lengths)], dtype=np.int32),
            context_lens=np.array([end for _, end in spans], dtype=np.int32),
            block_tables=np.concatenate(self.tables, dtype=np.int32),
            block_starts=np.cumsum([0, *map(len, self.tables)], dtype=np.int32),
        )

    def attend(self, options: AttentionOptions) -> torch.Tensor:
        """By the kernels; on the CPU, in float32."""
        attention = TritonAttention(self.cache)
        new = (tensor.to(self.device) for tensor in (self.query, self.key, self.value))
        return attention.forward(0, *new, attention.prepare(self.inputs()), options).cpu().float()

    def expected(self, options: AttentionOptions) -> torch.Tensor:
        """By the reference backend, on the CPU and in float32, from the same numbers."""
        attention = SdpaAttention(self.reference)
        new = (tensor.float() for tensor in (self.query, self.key, self.value))
        return attention.forward(0, *new, attention.prepare(self.inputs(CPU)), options)

    def check(self, options: AttentionOptions | None = None) -> None:
        """The kernels' output is the reference's."""
        options = options or AttentionOptions(self.key_dim**-0.5)
        self.assert_close(self.attend(options), self.expected(options))

    def assert_close(self, output: torch.Tensor, expected: torch.Tensor) -> None:
        """As exact as the dtype is."""
        tolerance = TOLERANCES[self.dtype]
        torch.testing.assert_close(output, expected, atol=tolerance, rtol=tolerance)

    def _numbers(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._random).to(self.dtype)

    def _random_tables(self) -> list[np.ndarray]:
        sizes = [-(-(before + new) // self.block_size) for before, new in self.lengths]
        self.num_blocks = sum(sizes) + SPARE_BLOCKS
        blocks = torch.randperm(self.num_blocks, generator=self._random).numpy()
        return np.split(blocks[: sum(sizes)], np.cumsum(sizes)[:-1])

    def _new_cache(self, dtype: torch.dtype, device: torch.device) -> KVCache:
        shape = KVShape(self.num_kv_heads, self.key_dim, self.value_dim)
        return KVCache([shape], self.num_blocks, self.block_size, dtype, device)

    def _layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(self.reference.keys[0], self.cache.keys[0]), (self.reference.values[0], self.cache.values[0])]

    def _slots(self, row: int, start: int, end: int) -> np.ndarray:
        places = np.arange(start, end)
        return self.tables[row][places // self.block_size] * self.block_size + places % self.block_size
