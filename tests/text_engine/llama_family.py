"""Tiny models of the Llama family with each of its switches, made so that every weight matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

from tests.tiny_models import SHAPE

WINDOWS = {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}


def make(model: type[PreTrainedModel], config: type[hf.PreTrainedConfig], **fields: Any) -> PreTrainedModel:
    """A model whose biases and norms, which transformers makes of zeros and ones, are random as all else is."""
    torch.manual_seed(7)
    made = model(config(**{**SHAPE, **fields})).eval()
    for parameter in made.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return made


def llama(**fields: Any) -> PreTrainedModel:
    return make(hf.LlamaForCausalLM, hf.LlamaConfig, **fields)


def mistral(**fields: Any) -> PreTrainedModel:
    return make(hf.MistralForCausalLM, hf.MistralConfig, **fields)


def qwen2(**fields: Any) -> PreTrainedModel:
    return make(hf.Qwen2ForCausalLM, hf.Qwen2Config, **fields)


def qwen3(**fields: Any) -> PreTrainedModel:
    return make(hf.Qwen3ForCausalLM, hf.Qwen3Config, **{"head_dim": 16, **fields})


FAMILY: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "llama: tied": lambda: llama(tie_word_embeddings=True),
    "llama: biases of attention": lambda: llama(attention_bias=True),
    "llama: biases everywhere": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama: wide heads": lambda: llama(head_dim=16),
    "llama: its third RoPE": lambda: llama(rope_parameters=LLAMA3_ROPE),
    "llama: linear RoPE": lambda: llama(rope_parameters=LINEAR),
    "llama: YaRN": lambda: llama(rope_parameters=YARN),
    "mistral": lambda: mistral(sliding_window=None),
    "mistral: window": lambda: mistral(sliding_window=10),
    "qwen2": qwen2,
    "qwen2: window in some layers": lambda: qwen2(**WINDOWS),
    "qwen3": qwen3,
    "qwen3: tied, biases, window in some layers": lambda: qwen3(
        tie_word_embeddings=True, attention_bias=True, **WINDOWS
    ),
}
