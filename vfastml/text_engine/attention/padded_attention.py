"""What the backends of flash kernels have in common: a step is a PaddedStep, and the write is the cache's own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.padded_step import PaddedStep
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache


class PaddedAttention(ABC):
    """An AttentionBackend on a KVCache that lacks `attend`."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def prepare(self, inputs: BatchInputs) -> PaddedStep:
        """See AttentionBackend."""
        return PaddedStep.of(inputs)

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        meta: PaddedStep,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """See AttentionBackend."""
        self._cache.write(layer, meta.slots, key, value)
        return self.attend(layer, query, meta, options)

    @abstractmethod
    def attend(self, layer: int, query: torch.Tensor, meta: PaddedStep, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
