"""The Llama family in few launches: seven or eight a layer, none of which waits for the host.

    qkv product | norm, bias, norms of heads, RoPE, KV write | attention, one or two | o product, added to the residual
    gate/up product | norm, bias, silu(gate) * up | down product, added to the residual

No norm and no sum has a launch of its own. The norms' weights are folded into the matrices behind them, and a row's
1 / rms, which is one number, is applied behind the product by the kernel that reads it anyway. The sums are the
beginnings of the products' own accumulators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from vfastml.text_engine.attention.interface import AttentionBackend, AttentionOptions
from vfastml.text_engine.attention.kind import AttentionKind
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.decoders.device_step import DeviceStep
from vfastml.text_engine.decoders.llama_weights import LlamaLayer, LlamaShape, LlamaWeights
from vfastml.text_engine.decoders.projection import PlainProjection, Projection, fold_norm
from vfastml.text_engine.decoders.rope_table import rope_angles
from vfastml.text_engine.kv_cache import KVCache, KVShape
from vfastml.text_engine.triton_kernels.rms_norm import rms_norm
from vfastml.text_engine.triton_kernels.rope_write import rope_write

MakeProjection = Callable[[torch.Tensor, torch.Tensor | None], Projection]
"""Of a weight [out, in] and a bias [out] on the device; takes the weight over."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights on the device, ready to compute with."""

    qkv: Projection
    qkv_bias: torch.Tensor | None
    head_norms: torch.Tensor | None
    """[2, head_dim]: of queries, of keys."""
    o: Projection
    gate_up: Projection
    gate_up_bias: torch.Tensor | None
    down: Projection
    attention: AttentionOptions


class TritonDecoder:
    """A Decoder of a Llama-like model on a GPU, or in Triton's interpreter."""

    def __init__(
        self,
        weights: LlamaWeights,
        device: torch.device,
        attention: AttentionKind,
        projection: MakeProjection = PlainProjection,
    ) -> None:
        """Moves the weights to the device layer by layer; they are in memory once. `projection` says how the products
        of the layers are computed."""
        shape = weights.shape
        self.name, self.kind = weights.name, "fused-triton"
        self.device, self.dtype = device, weights.dtype
        self.vocab_size = shape.vocab_size
        self.is_quantized = projection is not PlainProjection
        self.kv_shapes = [KVShape(shape.num_kv_heads, shape.head_dim, shape.head_dim, device)] * shape.num_layers
        self.config = weights.config
        self.end_token_ids = weights.end_token_ids
        self.shape = shape
        self.inv_freq, self.rope_scaling = weights.inv_freq, weights.rope_scaling
        self.attention, self.block_size = attention.name, attention.block_size
        self._attention = attention
        self._projection = projection
        self.layers = [self._layer(weights.layer(n), shape, window) for n, window in enumerate(shape.windows)]
        self.final_norm = weights.final_norm().to(device)
        lm_head = weights.lm_head()
        self.embedding = weights.embedding().to(device)
        self.lm_head = PlainProjection(self.embedding if lm_head is None else lm_head.to(device))

    def products(self) -> dict[str, tuple[list[Projection], tuple[int, int]]]:
        """Its matrices by kind, one of each layer, and the sizes of a row that goes in and of one that comes out."""
        shape = self.shape
        heads, kv_heads = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        hidden, inter = shape.hidden_size, shape.intermediate_size
        return {
            "qkv": ([layer.qkv for layer in self.layers], (hidden, heads + 2 * kv_heads)),
            "o": ([layer.o for layer in self.layers], (heads, hidden)),
            "gate_up": ([layer.gate_up for layer in self.layers], (hidden, 2 * inter)),
            "down": ([layer.down for layer in self.layers], (inter, hidden)),
            "lm_head": ([self.lm_head], (hidden, shape.vocab_size)),
        }

    def on(self, cache: KVCache) -> TritonForward:
        """See Decoder."""
        return TritonForward(self, cache, self._attention.on(cache))

    def _layer(self, layer: LlamaLayer, shape: LlamaShape, window: int | None) -> _Layer:
        return _Layer(
            qkv=self._projection(self._folded(layer.qkv, layer.input_norm), None),
            qkv_bias=self._moved(layer.qkv_bias),
            head_norms=self._head_norms(layer),
            o=self._projection(layer.o.to(self.device), self._moved(layer.o_bias)),
            gate_up=self._projection(self._folded(layer.gate_up, layer.post_norm), None),
            gate_up_bias=self._moved(layer.gate_up_bias),
            down=self._projection(layer.down.to(self.device), self._moved(layer.down_bias)),
            attention=AttentionOptions(shape.head_dim**-0.5, window),
        )

    def _folded(self, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        return fold_norm(weight.to(self.device), norm.to(self.device))

    def _moved(self, tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(self.device)

    def _head_norms(self, layer: LlamaLayer) -> torch.Tensor | None:
        if layer.q_norm is None or layer.k_norm is None:
            return None
        return torch.stack((layer.q_norm, layer.k_norm)).to(self.device)


class TritonForward:
    """A ForwardPass over one cache, which can also run a step that the host knows nothing of."""

    def __init__(self, decoder: TritonDecoder, cache: KVCache, backend: AttentionBackend) -> None:
        self.backend = backend
        """Its `prepare` makes a step's `attention`."""
        self._decoder = decoder
        self._cache = cache
        self._eps = decoder.shape.rms_norm_eps
        self._angles = rope_angles(
            decoder.inv_freq, decoder.rope_scaling, _num_positions(decoder, cache), decoder.device
        )

    @torch.inference_mode()
    def __call__(self, inputs: BatchInputs) -> torch.Tensor:
        """See ForwardPass."""
        with self._on_device():
            meta = self.backend.prepare(inputs)
            step = DeviceStep(inputs.input_ids, inputs.position_ids, inputs.slots, inputs.logits_index, meta)
            return self._run(step).float()

    @torch.inference_mode()
    def run(self, step: DeviceStep) -> torch.Tensor:
        """Logits [S, vocab_size] in the model's dtype, or float32 for float16. Reads nothing on the host and allocates
        by the step's shapes alone, so that it can be captured in a CUDA graph; then its tensors are read anew at each
        replay."""
        with self._on_device():
            return self._run(step)

    def _run(self, step: DeviceStep) -> torch.Tensor:
        decoder = self._decoder
        x = decoder.embedding.index_select(0, step.input_ids)
        for number, layer in enumerate(decoder.layers):
            query = self._write(number, layer, x, step)
            attended = self.backend.attend(number, query, step.attention, layer.attention)
            layer.o.add_to(x, attended.flatten(1))
            layer.down.add_to(x, layer.gate_up.silu_mul(x, eps=self._eps, bias=layer.gate_up_bias))
        x = rms_norm(x, decoder.final_norm, self._eps, step.logits_index)
        return decoder.lm_head(x)

    def _write(self, number: int, layer: _Layer, x: torch.Tensor, step: DeviceStep) -> torch.Tensor:
        return rope_write(
            layer.qkv(x),
            x,
            position_ids=step.position_ids,
            slots=step.slots,
            angles=self._angles,
            keys=self._cache.keys[number],
            values=self._cache.values[number],
            eps=self._eps,
            bias=layer.qkv_bias,
            head_norms=layer.head_norms,
        )

    def _on_device(self) -> AbstractContextManager[None]:
        """Triton launches on the current device."""
        device = self._decoder.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _num_positions(decoder: TritonDecoder, cache: KVCache) -> int:
    """No text is longer than the cache, nor than the model was made for; but a step may have been begun before it was
    known that a text has ended."""
    in_cache = cache.keys[0].shape[0] * cache.block_size
    longest = getattr(decoder.config, "max_position_embeddings", None) or in_cache
    return min(in_cache, longest) + cache.block_size
