"""What a decode step has to read, and what share of the memory's speed a measured one comes to."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import AutoConfig

from vfastml.text_engine.decoders.llama_shape import EMBEDDING, LM_HEAD, expected_tensors, shape_of


def weight_bytes_per_step(folder: Path, bytes_per_number: int) -> int:
    """All weights of the model whose config lies in `folder`, but an embedding that is not the output layer too, of
    which a step takes one row."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    sizes = expected_tensors(config, shape_of(config))
    del sizes[EMBEDDING if not config.tie_word_embeddings else LM_HEAD]
    return sum(map(math.prod, sizes.values())) * bytes_per_number


def kv_bytes_per_token(folder: Path, bytes_per_number: int) -> int:
    """Keys and values of all layers."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    shape = shape_of(config)
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * bytes_per_number


def step_bytes(folder: Path, bytes_per_number: int, sequences: int, context: float) -> float:
    """That a decode step of so many sequences, of so many tokens each, reads."""
    kv_bytes = sequences * context * kv_bytes_per_token(folder, bytes_per_number)
    return weight_bytes_per_step(folder, bytes_per_number) + kv_bytes
