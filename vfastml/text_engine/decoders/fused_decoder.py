"""The Llama family in one flat forward pass of torch, for any device: merged projections, no modules, nothing that is
computed for tokens whose logits nobody reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import rms_norm, silu

from vfastml.text_engine.attention.interface import AttentionBackend, AttentionOptions
from vfastml.text_engine.attention.kind import SDPA, AttentionKind
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.decoders.decoder import ForwardPass
from vfastml.text_engine.decoders.linear import Linear
from vfastml.text_engine.decoders.llama_weights import LlamaLayer, LlamaShape, LlamaWeights
from vfastml.text_engine.decoders.rope_table import RopeTable, rotate
from vfastml.text_engine.kv_cache import KVCache, KVShape


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights, ready to compute with."""

    input_norm: torch.Tensor
    qkv: Linear
    qk_norm: torch.Tensor | None
    """[heads + KV heads, head_dim]"""
    o: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear
    attention: AttentionOptions

    @classmethod
    def of(cls, layer: LlamaLayer, shape: LlamaShape, window: int | None, device: torch.device) -> _Layer:
        """Takes the weights over; they are not needed any more."""
        return cls(
            layer.input_norm.to(device),
            Linear(layer.qkv, layer.qkv_bias, device),
            _qk_norm(layer, shape, device),
            Linear(layer.o, layer.o_bias, device),
            layer.post_norm.to(device),
            Linear(layer.gate_up, layer.gate_up_bias, device),
            Linear(layer.down, layer.down_bias, device),
            AttentionOptions(shape.head_dim**-0.5, window),
        )


class FusedDecoder:
    """A Decoder of a Llama-like model."""

    def __init__(self, weights: LlamaWeights, device: torch.device, attention: AttentionKind = SDPA) -> None:
        """Reads the weights layer by layer; they are in memory once."""
        shape = weights.shape
        self.name, self.kind = weights.name, "fused-torch"
        self.device, self.dtype = device, weights.dtype
        self.vocab_size = shape.vocab_size
        self.is_quantized = False
        self.kv_shapes = [KVShape(shape.num_kv_heads, shape.head_dim, shape.head_dim, device)] * shape.num_layers
        self.attention, self.block_size = attention.name, attention.block_size
        self._attention = attention
        self.config = weights.config
        self.end_token_ids = weights.end_token_ids
        self._shape = shape
        self._rope = RopeTable(weights.inv_freq, weights.rope_scaling, weights.dtype, device)
        layer_of = partial(_Layer.of, shape=shape, device=device)
        windows = zip(range(shape.num_layers), shape.windows, strict=True)
        self._layers = [layer_of(weights.layer(number), window=window) for number, window in windows]
        self._final_norm = weights.final_norm().to(device)
        self._embedding, self._lm_head = _embeddings(weights, device)

    def on(self, cache: KVCache) -> ForwardPass:
        """See Decoder."""
        return partial(self._forward, self._attention.on(cache))

    def _forward(self, backend: AttentionBackend, inputs: BatchInputs) -> torch.Tensor:
        num_tokens = len(inputs.input_ids)
        meta = backend.prepare(inputs)
        x = self._embedding[_at_least_two(inputs.input_ids)].to(self.dtype)
        cos, sin = self._rope.at(_at_least_two(inputs.position_ids), int(inputs.context_lens.max()))
        for number, layer in enumerate(self._layers):
            query, key, value = self._qkv(layer, x, cos, sin)
            attended = backend.forward(
                number, query[:num_tokens], key[:num_tokens], value[:num_tokens], meta, layer.attention
            )
            x = x + layer.o(_at_least_two(attended.flatten(1)))
            x = x + self._mlp(layer, x)
        return self._logits(x, inputs.logits_index)

    def _qkv(
        self, layer: _Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [T, heads, dim], keys and values [T, KV heads, dim], after RoPE."""
        shape = self._shape
        qkv = layer.qkv(self._norm(x, layer.input_norm)).view(len(x), -1, shape.head_dim)
        qk, value = qkv[:, : -shape.num_kv_heads], qkv[:, -shape.num_kv_heads :]
        if layer.qk_norm is not None:
            qk = self._norm(qk) * layer.qk_norm
        qk = rotate(qk, cos, sin)
        return qk[:, : shape.num_heads], qk[:, shape.num_heads :], value

    def _mlp(self, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
        gate, up = layer.gate_up(self._norm(x, layer.post_norm)).chunk(2, dim=-1)
        return layer.down(silu(gate) * up)

    def _logits(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if not len(index):
            return x.new_empty(0, self.vocab_size, dtype=torch.float32)
        x = self._norm(x[_at_least_two(index)], self._final_norm)
        return self._lm_head(x)[: len(index)].float()

    def _norm(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Over the last dimension, in float32 inside."""
        return rms_norm(x, x.shape[-1:], weight, self._shape.rms_norm_eps)


def _qk_norm(layer: LlamaLayer, shape: LlamaShape, device: torch.device) -> torch.Tensor | None:
    """Queries and keys are normed together: one weight for each of their heads."""
    if layer.q_norm is None or layer.k_norm is None:
        return None
    weights = layer.q_norm.expand(shape.num_heads, -1), layer.k_norm.expand(shape.num_kv_heads, -1)
    return torch.cat(weights).to(device)


def _embeddings(weights: LlamaWeights, device: torch.device) -> tuple[torch.Tensor, Linear]:
    """The table of the input, and the output's product; one tensor for both where they are tied and nothing is packed.
    On a CPU the table stays in the file, of which only the rows of used tokens are read."""
    lm_head = weights.lm_head()
    if device.type == "cpu":
        return weights.embedding_table(), Linear(weights.embedding() if lm_head is None else lm_head, None, device)
    table = weights.embedding().to(device)
    return table, Linear(table if lm_head is None else lm_head, None, device)


def _at_least_two(rows: torch.Tensor) -> torch.Tensor:
    """A row that is alone gets a copy beside it: see Linear."""
    return rows.repeat(2, *(1,) * (rows.dim() - 1)) if len(rows) == 1 else rows
