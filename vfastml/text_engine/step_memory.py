"""How much memory a step takes beside weights and KV cache: an estimate, from what a model's config says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfastml.text_engine.kv_cache import KVShape

_RATED_PROMPT_TOKENS = 256
"""Whose logits a step may have beside those of the rows that sample: see Scheduler."""
_LOGITS_COPIES = 3
"""In float32, that sampling has at the same time: the logits, what penalties and cuts make of them, one to work on."""


@dataclass(frozen=True, slots=True)
class ModelWidths:
    """How many numbers a token is, at each place in a model where that matters."""

    hidden: int
    inner: int
    """Of the MLP: of all experts that a token goes to."""
    heads: int
    """Of queries, keys and values of a layer together."""
    vocab: int
    itemsize: int
    """Bytes of a number between the layers."""

    @classmethod
    def of(cls, config: Any, kv_shapes: Sequence[KVShape], vocab_size: int, itemsize: int) -> ModelWidths:
        """`config` is the text config of transformers; what it does not name is taken to be as in most models."""
        hidden = int(getattr(config, "hidden_size", None) or vocab_size // 16)
        num_heads = int(getattr(config, "num_attention_heads", None) or 1)
        heads = max(num_heads * shape.key_dim + shape.numbers_per_token for shape in kv_shapes)
        return cls(hidden, _inner(config, hidden), heads, vocab_size, itemsize)

    def step_bytes(self, num_tokens: int, num_rows: int) -> int:
        """Of a step of so many tokens, with logits of so many rows, and of some tokens of prompts."""
        return num_tokens * self._token_bytes + (num_rows + _RATED_PROMPT_TOKENS) * self._logits_bytes

    def graph_bytes(self, num_rows: int) -> int:
        """Of the largest recorded decode step, whose memory the smaller ones share."""
        return num_rows * (self._token_bytes + self._logits_bytes)

    @property
    def _token_bytes(self) -> int:
        """At the widest place of a layer: the residual, its norm in float32, the MLP's two products, their activation
        and its output, and what attention had before and after RoPE."""
        return self.itemsize * (6 * self.hidden + 4 * self.inner + 3 * self.heads) + 2 * 4 * self.hidden

    @property
    def _logits_bytes(self) -> int:
        return self.vocab * (self.itemsize + 4 * _LOGITS_COPIES)


def _inner(config: Any, hidden: int) -> int:
    """Some models have a list, one for each layer; experts count as often as a token goes to one."""
    given = getattr(config, "intermediate_size", None) or 4 * hidden
    widest = max(given) if isinstance(given, list | tuple) else int(given)
    of_expert = getattr(config, "moe_intermediate_size", None) or 0
    per_token = getattr(config, "num_experts_per_tok", None) or 0
    return max(widest, (max(of_expert) if isinstance(of_expert, list | tuple) else int(of_expert)) * int(per_token))
