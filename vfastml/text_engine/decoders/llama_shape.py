"""Is a config one of the Llama family, and which tensors of which shapes does it then have?

Llama, Mistral, Qwen2 and Qwen3 are one architecture with a few switches. Whatever is not known to be exactly that
architecture is refused here, and left to transformers' own modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
"""Angles that depend on the position alone, not on how long a text has become."""
EMBEDDING, FINAL_NORM, LM_HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


class NotFusable(Exception):
    """The model is not known to be of this family; the message says why, in one sentence."""


@dataclass(frozen=True)
class LlamaShape:
    """What the numbers of a Llama-like model are."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    windows: tuple[int | None, ...]
    """For each layer: a token sees itself and this many minus one before it; None: all before it."""


def check_config(config: Any) -> None:
    """Raises NotFusable for a config of another family."""
    architecture = ARCHITECTURES.get(config.model_type)
    require(architecture is not None, f"its type, {config.model_type}, is another one")
    require(list(config.architectures or []) == [architecture], f"it is not a {architecture}")
    require(getattr(config, "quantization_config", None) is None, "its weights are stored quantized")
    require(config.hidden_act == "silu", f"its activation, {config.hidden_act}, is another one")
    require(getattr(config, "is_causal", True) is not False, "its tokens see those after them")
    window = getattr(config, "sliding_window", None)
    require(window is None or window > 0, "its window is empty")
    require(config.num_attention_heads % config.num_key_value_heads == 0, "its heads share KV heads unevenly")


def shape_of(config: Any) -> LlamaShape:
    """The numbers of a config that `check_config` took. Raises NotFusable for windows in an unknown form."""
    return LlamaShape(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=config.vocab_size,
        rms_norm_eps=config.rms_norm_eps,
        windows=_windows(config),
    )


def _windows(config: Any) -> tuple[int | None, ...]:
    """Mistral's window holds in every layer, Qwen's where `layer_types` says so; transformers' Llama knows neither."""
    window: int | None = getattr(config, "sliding_window", None)
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    num_layers: int = config.num_hidden_layers
    if config.model_type == "mistral":
        return (window,) * num_layers
    if config.model_type == "llama":
        require(window is None and layer_types is None, "it has a window, which transformers' Llama knows nothing of")
        return (None,) * num_layers
    known = {"full_attention": None} | ({"sliding_attention": window} if window is not None else {})
    layer_types = layer_types or []
    require(set(layer_types) <= set(known), "it has layers of an unknown type")
    return tuple(known[layer_type] for layer_type in layer_types)


def rope_of(config: Any, head_dim: int) -> tuple[torch.Tensor, float]:
    """[head_dim / 2] float32: how far each pair turns from one position to the next; and the factor of its cosine and
    sine. Raises NotFusable for angles that depend on more than the position."""
    parameters = config.rope_parameters or {}
    kind = parameters.get("rope_type")
    require(kind in _FIXED_ROPE, f"its RoPE, of type {kind}, is not one of fixed angles")
    rotary = LlamaRotaryEmbedding(config)  # the same code in each family
    inv_freq, scaling = rotary.inv_freq, rotary.attention_scaling
    require(2 * len(inv_freq) == head_dim, "its RoPE does not fit its heads")
    return inv_freq, float(scaling)


def expected_tensors(config: Any, shape: LlamaShape) -> dict[str, list[int]]:
    """The shape of each tensor that the model has, the output embedding included even where it may be left out."""
    hidden = shape.hidden_size
    of_model = {EMBEDDING: [shape.vocab_size, hidden], FINAL_NORM: [hidden], LM_HEAD: [shape.vocab_size, hidden]}
    of_layer = _tensors_of_layer(config, shape)
    layers = range(shape.num_layers)
    return of_model | {f"model.layers.{n}.{name}": size for n in layers for name, size in of_layer.items()}


def _tensors_of_layer(config: Any, shape: LlamaShape) -> dict[str, list[int]]:
    hidden, inter = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    matrices = {
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "mlp.gate_proj": [inter, hidden],
        "mlp.up_proj": [inter, hidden],
        "mlp.down_proj": [hidden, inter],
    }
    norms = {"input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
    if config.model_type == "qwen3":
        norms |= {"self_attn.q_norm": [shape.head_dim], "self_attn.k_norm": [shape.head_dim]}
    biased = [name for name in matrices if _has_bias(config, name)]
    weights = {f"{name}.weight": size for name, size in (matrices | norms).items()}
    return weights | {f"{name}.bias": matrices[name][:1] for name in biased}


def _has_bias(config: Any, matrix: str) -> bool:
    """As the modules of each family are made in transformers."""
    if matrix.startswith("mlp."):
        return config.model_type == "llama" and bool(config.mlp_bias)
    if config.model_type == "qwen2":
        return matrix != "self_attn.o_proj"
    return config.model_type != "mistral" and bool(config.attention_bias)


def require(holds: bool, reason: str) -> None:
    """Raises NotFusable with the reason where something does not hold."""
    if not holds:
        raise NotFusable(reason)
