"""Random models of a few thousand weights, saved as ordinary Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SLIDING_WINDOW = 24
SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "initializer_range": 0.3,  # far from zero: logits that differ clearly
}
_TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant', 'tool'] %}"
    "{{ raise_exception('unknown role') }}{% endif %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}assistant:"
)


def save_tiny_models(folder: Path) -> dict[str, Path]:
    """One folder for each architecture."""
    makers = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=SLIDING_WINDOW)),
    }
    folders = {}
    for name, make in makers.items():
        torch.manual_seed(7)
        folders[name] = save_model(make(), folder / name)
    return folders


def save_model(model: PreTrainedModel, folder: Path, *, template: str | None = _TEMPLATE) -> Path:
    """The model in float32, with a tokenizer of one token for each byte and three special ones."""
    model.eval().save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return folder


def byte_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """256 bytes, then <s> (256), </s> (257) and <pad> (258)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=4096
    )
    tokenizer.chat_template = template
    return tokenizer
