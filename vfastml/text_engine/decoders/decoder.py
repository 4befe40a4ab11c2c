"""What runs a model's layers: the engine knows a decoder by this protocol alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

ForwardPass = Callable[[BatchInputs], torch.Tensor]
"""Writes the tokens' KV into the cache, and returns logits [S, vocab_size] in float32 of the tokens at `logits_index`.
They are good until the next call, and the caller may write over them."""


class Decoder(Protocol):
    """A causal language model over a paged KV cache."""

    name: str
    """For errors, such as LlamaForCausalLM."""
    kind: str
    """For logs: `hf` (transformers' modules), `fused-torch` (our own in torch), `fused-cpu` (our kernels in C++),
    `fused-triton` (those in Triton)."""
    device: torch.device
    """Where inputs go and logits come from."""
    dtype: torch.dtype
    """Of activations and KV cache."""
    vocab_size: int
    is_quantized: bool
    """Then what is computed may depend a little on the other rows of a batch."""
    kv_shapes: list[KVShape]
    """One for each layer."""
    attention: str
    """What computes its attention: an AttentionKind's name, or `own` where it has none beside its other kernels."""
    block_size: int
    """Tokens in a block of the cache, as its attention reads it. With BLOCK_SIZE any power of two from 4 will do."""
    config: Any
    """The text config of transformers."""
    end_token_ids: list[int]
    """Of the model's generation config; a tokenizer may name another one."""

    def on(self, cache: KVCache) -> ForwardPass:
        """The forward pass over this cache, whose layers have `kv_shapes`."""
