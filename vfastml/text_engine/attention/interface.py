"""What a decoder calls in each attention layer, whichever backend computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from vfastml.text_engine.batch_inputs import BatchInputs


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What a layer may ask for beyond causal attention."""

    scaling: float
    sliding_window: int | None = None
    """A token sees itself and this many minus one before it; None: all before it."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""


class AttentionBackend(Protocol):
    """`prepare` once for each step, then `forward` for each layer of it, or `attend` where the layer's keys and values
    have been written already."""

    name: str
    """For logs, and for `--attention-backend`."""

    def prepare(self, inputs: BatchInputs) -> Any:
        """The step's metadata, which `forward` and `attend` get back."""

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        meta: Any,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """Writes key and value [T, num_kv_heads, dim] into the cache, then attends with query [T, num_heads, dim], both
        after RoPE. Returns [T, num_heads, value_dim]."""

    def attend(self, layer: int, query: torch.Tensor, meta: Any, options: AttentionOptions) -> torch.Tensor:
        """The second half of `forward`: the step's keys and values are in the cache."""


@dataclass(slots=True)
class AttentionStep:
    """One step's attention as a decoder sees it: hand it to each layer. Counts the calls, so that a model whose layers
    do not all come here is noticed."""

    backend: AttentionBackend
    meta: Any
    num_tokens: int
    """Of the step; what a decoder computes beyond them for its own reasons does not come here."""
    num_calls: int = 0

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        self.num_calls += 1
        return self.backend.forward(layer, query, key, value, self.meta, options)
