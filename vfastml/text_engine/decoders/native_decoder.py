"""The Llama family on a CPU: all of a step in one call of our own kernels, which have threads of their own."""

from __future__ import annotations

import ctypes
import weakref

import torch

from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.cpu_kernels import Kernels
from vfastml.text_engine.cpu_kernels.packing import Packer, interleaved
from vfastml.text_engine.cpu_kernels.pointers import caches_of
from vfastml.text_engine.cpu_kernels.structs import BF16, F32, I8, Ends, Layer, Shape, Step
from vfastml.text_engine.cpu_threads import num_compute_threads
from vfastml.text_engine.decoders.decoder import ForwardPass
from vfastml.text_engine.decoders.llama_weights import LlamaLayer, LlamaWeights
from vfastml.text_engine.engine_config import BLOCK_SIZE
from vfastml.text_engine.kv_cache import KVCache, KVShape

_FORMATS = {torch.float32: F32, torch.bfloat16: BF16}
NATIVE_DTYPES = tuple(_FORMATS)
"""That there are kernels for."""


class NativeDecoder:
    """Packs the weights, of one of NATIVE_DTYPES, which are then in memory once.

    `quantization` may be `int8`: weights with a scale for each output, activations with one for each 64 values of a row
    (W8A8). Embedding, norms, attention and KV cache stay as they are.
    """

    kind = "fused-cpu"
    attention = "own"
    block_size = BLOCK_SIZE
    is_quantized = False
    """8-bit products are exact whole numbers: no row depends on others."""

    def __init__(self, weights: LlamaWeights, kernels: Kernels, quantization: str | None = None) -> None:
        shape = weights.shape
        self.name = weights.name
        self.device = torch.device("cpu")
        self.dtype = weights.dtype
        self.vocab_size = shape.vocab_size
        self.config = weights.config
        self.end_token_ids = weights.end_token_ids
        self.kv_shapes = [KVShape(shape.num_kv_heads, shape.head_dim, shape.head_dim)] * shape.num_layers
        self.kernels = kernels
        self.shape = shape
        self.angles = _Angles(weights.inv_freq, weights.rope_scaling)
        self._packer = Packer(kernels, I8 if quantization else _FORMATS[weights.dtype], _matrix_shapes(weights))
        self.num_weight_bytes = self._packer.num_bytes
        """Read in each step, whatever its size."""
        windows = zip(range(shape.num_layers), shape.windows, strict=True)
        self.layers = (Layer * shape.num_layers)(*(self._layer(weights.layer(i), window) for i, window in windows))
        self.ends = self._ends(weights)

    def on(self, cache: KVCache) -> ForwardPass:
        """See Decoder."""
        return _Pass(self, cache)

    def _layer(self, layer: LlamaLayer, window: int | None) -> Layer:
        pack, half = self._packer, self.kernels.panel // 2
        width = pack.width(self.shape.hidden_size)
        gate_up_bias = None if layer.gate_up_bias is None else interleaved(layer.gate_up_bias, half)
        return Layer(
            pack.vector(layer.input_norm, width),
            pack.vector(layer.post_norm, width),
            pack.vector(layer.q_norm),
            pack.vector(layer.k_norm),
            pack.matrix(layer.qkv, layer.qkv_bias),
            pack.matrix(layer.o, layer.o_bias),
            pack.matrix(interleaved(layer.gate_up, half), gate_up_bias),
            pack.matrix(layer.down, layer.down_bias),
            window or 0,
        )

    def _ends(self, weights: LlamaWeights) -> Ends:
        pack = self._packer
        lm_head, embedding = weights.lm_head(), weights.embedding()
        # As packed in full precision, the vocabulary's own rows serve as the embedding.
        is_apart = lm_head is not None or pack.format == I8
        return Ends(
            pack.matrix(embedding if lm_head is None else lm_head),
            pack.keep(embedding) if is_apart else None,
            pack.vector(weights.final_norm(), pack.width(self.shape.hidden_size)),
        )


class _Pass:
    """A decoder over one cache, with threads that sleep between calls."""

    def __init__(self, decoder: NativeDecoder, cache: KVCache) -> None:
        self._decoder = decoder
        self._cache = cache
        self._caches = caches_of(cache)
        self._run = decoder.kernels.library.vfastml_decoder_run
        self._handle = _new(decoder, cache)
        # not at the interpreter's exit, when another thread may still be in a step
        weakref.finalize(self, decoder.kernels.library.vfastml_decoder_delete, self._handle).atexit = False
        self._logits = torch.empty(0, decoder.ends.vocabulary.outputs)

    def __call__(self, inputs: BatchInputs) -> torch.Tensor:
        """See ForwardPass."""
        cosines, sines = self._decoder.angles.up_to(int(inputs.context_lens.max()))
        num_logits = len(inputs.logits_index)
        logits = self._room_for(num_logits)
        step = Step(
            inputs.input_ids.data_ptr(),
            inputs.position_ids.data_ptr(),
            inputs.slots.data_ptr(),
            inputs.logits_index.data_ptr(),
            inputs.query_starts.ctypes.data,
            inputs.block_tables.ctypes.data,
            inputs.block_starts.ctypes.data,
            cosines.data_ptr(),
            sines.data_ptr(),
            self._caches,
            logits.data_ptr(),
            len(inputs.input_ids),
            len(inputs.context_lens),
            num_logits,
        )
        if not self._run(self._handle, ctypes.byref(step)):
            raise MemoryError(f"there is no memory for a step of {step.num_tokens} tokens")
        return logits[:num_logits, : self._decoder.vocab_size]

    def _room_for(self, num_logits: int) -> torch.Tensor:
        if num_logits > len(self._logits):
            self._logits = torch.empty(num_logits, self._decoder.ends.vocabulary.outputs)
        return self._logits


class _Angles:
    """Cosines and sines [positions, head_dim / 2] of the rotary positions, made as far as they are needed."""

    def __init__(self, inv_freq: torch.Tensor, scaling: float) -> None:
        self._inv_freq = inv_freq
        self._scaling = scaling
        self._cosines = self._sines = torch.empty(0)

    def up_to(self, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Good until the next call."""
        if num_positions > len(self._cosines):
            angles = torch.arange(2 * num_positions).float()[:, None] * self._inv_freq
            self._cosines, self._sines = angles.cos() * self._scaling, angles.sin() * self._scaling
        return self._cosines, self._sines


def _new(decoder: NativeDecoder, cache: KVCache) -> int:
    new = decoder.kernels.library.vfastml_decoder_new
    shape = ctypes.byref(_shape(decoder, cache))
    handle = new(shape, decoder.layers, ctypes.byref(decoder.ends), num_compute_threads())
    if handle is None:
        raise MemoryError(f"there is no memory, or there are no {num_compute_threads()} threads, for the CPU kernels")
    return int(handle)


def _shape(decoder: NativeDecoder, cache: KVCache) -> Shape:
    shape = decoder.shape
    return Shape(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        block_size=cache.block_size,
        cache_is_bf16=decoder.dtype == torch.bfloat16,
        embedding_is_bf16=decoder.dtype == torch.bfloat16,
        epsilon=shape.rms_norm_eps,
        scaling=shape.head_dim**-0.5,
    )


def _matrix_shapes(weights: LlamaWeights) -> list[tuple[int, int]]:
    shape = weights.shape
    hidden, inner = shape.hidden_size, shape.intermediate_size
    heads = shape.num_heads * shape.head_dim
    qkv = heads + 2 * shape.num_kv_heads * shape.head_dim
    gate_up = 2 * -(-inner // 16) * 16
    layer = [(qkv, hidden), (hidden, heads), (gate_up, hidden), (hidden, inner)]
    return [*layer * shape.num_layers, (shape.vocab_size, hidden)]
