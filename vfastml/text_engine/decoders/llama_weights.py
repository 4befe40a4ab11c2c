"""The weights of a Llama-like model, read layer by layer from safetensors without making a transformers model;
or random ones of the same shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from vfastml.text_engine.decoders.end_tokens import end_token_list
from vfastml.text_engine.decoders.llama_shape import (
    ARCHITECTURES,
    EMBEDDING,
    FINAL_NORM,
    LM_HEAD,
    LlamaShape,
    NotFusable,
    check_config,
    expected_tensors,
    require,
    rope_of,
    shape_of,
)
from vfastml.text_engine.decoders.random_tensors import RandomTensors
from vfastml.text_engine.decoders.tensor_files import TensorFiles
from vfastml.text_engine.decoders.tensor_source import TensorSource

__all__ = ["LlamaLayer", "LlamaShape", "LlamaWeights", "NotFusable"]

_FLOATS = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class LlamaLayer:
    """One layer's weights, out_features x in_features: copies on the CPU, which hold nothing of the file in memory, or
    random ones where they were made."""

    input_norm: torch.Tensor
    """[hidden]"""
    qkv: torch.Tensor
    """[(heads + 2 * KV heads) * head_dim, hidden]: queries, keys, values."""
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    """[head_dim]; before RoPE."""
    k_norm: torch.Tensor | None
    o: torch.Tensor
    """[hidden, heads * head_dim]"""
    o_bias: torch.Tensor | None
    post_norm: torch.Tensor
    """[hidden]"""
    gate_up: torch.Tensor
    """[2 * intermediate, hidden]: gate rows first."""
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    """[hidden, intermediate]"""
    down_bias: torch.Tensor | None


class LlamaWeights:
    """An opened folder: tensors are read, merged and converted when asked for, so that one who packs them holds one
    layer at a time."""

    def __init__(self, config: Any, tensors: TensorSource, dtype: torch.dtype, end_token_ids: list[int]) -> None:
        self.config = config
        self.dtype = dtype
        self.name = ARCHITECTURES[config.model_type]
        self.end_token_ids = end_token_ids
        self.shape = shape_of(config)
        self.inv_freq, self.rope_scaling = rope_of(config, self.shape.head_dim)
        """[head_dim / 2] float32, the angle of each pair for one position; and the factor of its cosine and sine."""
        self._tensors = tensors
        _check_tensors(tensors, expected_tensors(config, self.shape), tied=bool(config.tie_word_embeddings))

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype) -> LlamaWeights:
        """Raises NotFusable if anything at all is not known to be exactly this family."""
        config = _config(folder)
        require(not (folder / "adapter_config.json").exists(), "an adapter lies beside its weights")
        return cls(config, TensorFiles.of(folder), dtype, _end_token_ids(folder, config))

    @classmethod
    def random(cls, folder: Path, dtype: torch.dtype, device: torch.device) -> LlamaWeights:
        """Random ones, made on the device, in the shapes that the folder's config gives; no weights are read. Raises
        NotFusable as `open` does."""
        config = _config(folder)
        shapes = expected_tensors(config, shape_of(config))
        if config.tie_word_embeddings:
            del shapes[LM_HEAD]
        return cls(config, RandomTensors(shapes, dtype, device), dtype, _end_token_ids(folder, config))

    def layer(self, number: int) -> LlamaLayer:
        """The layer's weights in `dtype`."""
        prefix = f"model.layers.{number}."
        q, k, v, o = (f"{prefix}self_attn.{name}_proj" for name in "qkvo")
        gate, up, down = (f"{prefix}mlp.{name}_proj" for name in ("gate", "up", "down"))
        return LlamaLayer(
            input_norm=self._read(f"{prefix}input_layernorm.weight"),
            qkv=self._merged(q, k, v),
            qkv_bias=self._bias(q, k, v),
            q_norm=self._optional(f"{prefix}self_attn.q_norm.weight"),
            k_norm=self._optional(f"{prefix}self_attn.k_norm.weight"),
            o=self._merged(o),
            o_bias=self._bias(o),
            post_norm=self._read(f"{prefix}post_attention_layernorm.weight"),
            gate_up=self._merged(gate, up),
            gate_up_bias=self._bias(gate, up),
            down=self._merged(down),
            down_bias=self._bias(down),
        )

    def embedding(self) -> torch.Tensor:
        """[vocab, hidden]"""
        return self.embedding_table().to(self.dtype)

    def embedding_table(self) -> torch.Tensor:
        """The same in the dtype of the file, and mapped from there: rows that are never looked up take no memory."""
        return self._tensors.read_mapped(EMBEDDING)

    def final_norm(self) -> torch.Tensor:
        """[hidden]"""
        return self._read(FINAL_NORM)

    def lm_head(self) -> torch.Tensor | None:
        """[vocab, hidden]; None: the embedding again. A stored one that differs from the embedding is used even where
        the config says that they are tied, as transformers does."""
        if LM_HEAD not in self._tensors.names:
            return None
        head = self._read(LM_HEAD)
        if self.config.tie_word_embeddings and torch.equal(head, self._read(EMBEDDING)):
            return None
        return head

    def _read(self, name: str) -> torch.Tensor:
        return self._tensors.read(name).to(self.dtype, copy=True)

    def _optional(self, name: str) -> torch.Tensor | None:
        return self._read(name) if name in self._tensors.names else None

    def _merged(self, *modules: str, part: str = "weight") -> torch.Tensor:
        tensors = [self._tensors.read(f"{module}.{part}") for module in modules]
        return torch.cat(tensors).to(self.dtype)

    def _bias(self, *modules: str) -> torch.Tensor | None:
        return self._merged(*modules, part="bias") if f"{modules[0]}.bias" in self._tensors.names else None


def _config(folder: Path) -> Any:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    check_config(config)
    return config


def _check_tensors(tensors: TensorSource, expected: dict[str, list[int]], *, tied: bool) -> None:
    # Old checkpoints have the angles of RoPE, which transformers makes from the config
    stored = {name for name in tensors.names if not name.endswith(".self_attn.rotary_emb.inv_freq")}
    optional = {LM_HEAD} if tied else set()
    missing, unknown = expected.keys() - stored - optional, stored - expected.keys()
    require(not missing, f"it lacks {len(missing)} tensors, {min(missing, default='')} among them")
    require(not unknown, f"it has {len(unknown)} tensors too many, {min(unknown, default='')} among them")
    for name in stored:
        dtype, size = tensors.kind(name)
        require(dtype in _FLOATS, f"its tensor {name} is stored as {dtype}")
        require(size == expected[name], f"its tensor {name} has another shape than its config says")


def _end_token_ids(folder: Path, config: Any) -> list[int]:
    """As a transformers model has them: of generation_config.json, or else of config.json."""
    if (folder / "generation_config.json").is_file():
        return end_token_list(GenerationConfig.from_pretrained(folder, local_files_only=True))
    return end_token_list(GenerationConfig.from_model_config(config))
