"""A request's sampling parameters, settled: every field has a value and is in range."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.engine.text_parameters import check_token_bounds, checked

_GREEDY_BELOW = 1e-5
"""Temperatures; logits divided by one much smaller would overflow."""


class SampledToken(msgspec.Struct, frozen=True, gc=False):
    """What a step has chosen for one choice."""

    token: int
    score: float | None = None
    """The model's own log probability of it, where `output_scores` asks for it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen. SamplingParams says what each field means; the defaults are neutral."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_time: float | None = None
    output_scores: bool = False

    @property
    def greedy(self) -> bool:
        """Always the most probable token."""
        return self.temperature < _GREEDY_BELOW

    @property
    def alters_logits(self) -> bool:
        """Some logits change before anything is chosen from them."""
        return self.repetition_penalty != 1.0 or bool(self.logit_bias)

    @property
    def takes_argmax(self) -> bool:
        """Always the token of the largest logit, as the model gives them, and nothing else is asked."""
        bars_end_tokens = self.min_tokens > 0 and not self.ignore_eos
        return self.greedy and not (self.alters_logits or self.output_scores or bars_end_tokens)


def settle_sampling(asked: SamplingParams, defaults: SamplingParams, *, room: int) -> Sampling:
    """The request's own values, else the server's, else neutral ones; max_tokens is clamped to `room` tokens.

    Raises InvalidRequestError, with `param`, for a value out of range, and for a request whose own min_tokens and
    max_tokens contradict each other. Whether the tokens of `logit_bias` exist is for the one to check who knows the
    vocabulary.
    """
    values: dict[str, Any] = {"max_tokens": room, "seed": secrets.randbits(63)}
    for name in SamplingParams.__struct_fields__:
        own = getattr(asked, name)
        value = getattr(defaults, name) if own is None else own
        if value is not None:
            values[name] = checked(name, value)
    check_token_bounds(asked.min_tokens, asked.max_tokens)
    values["max_tokens"] = min(values["max_tokens"], room)
    return Sampling(**values)
