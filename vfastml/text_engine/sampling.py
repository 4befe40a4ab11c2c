"""A request's sampling parameters, settled: every field has a value and is in range."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.engine.text_parameters import check_token_bounds, checked

_GREEDY_BELOW = 1e-5
"""Temperatures; logits divided by one much smaller would overflow."""


class SampledToken(msgspec.Struct, frozen=True, gc=False):
    """What a step has chosen for one choice."""

    token: int
    score: float | None = None
    """The model's own log probability of it, where `output_scores` or `logprobs` ask for it."""
    rank: int = 0
    """Of the token among all, from 1 on, where `logprobs` asks for it."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens and their log probabilities, as many as `logprobs` asks for."""
    beam_score: float = 0.0
    """Of a beam's candidate: its log probability after all that the request asks for, diversity apart."""


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
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    repetition_detection: RepetitionDetection | None = None
    skip_special_tokens: bool = True
    barred_tokens: tuple[tuple[int, ...], ...] = ()
    """`bad_words`, each in all the ways in which it may be tokens."""
    is_ranked: bool = False
    """The best of several choices are answered, by their log probability."""

    @property
    def greedy(self) -> bool:
        """Always the most probable token."""
        return self.temperature < _GREEDY_BELOW

    @property
    def alters_logits(self) -> bool:
        """Some logits change before anything is chosen from them."""
        if self.logit_bias or self.allowed_token_ids or self.barred_tokens:
            return True
        return self.repetition_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0

    @property
    def forbids_tokens(self) -> bool:
        """So many tokens may be out of the question that none is left."""
        return bool(self.allowed_token_ids or self.barred_tokens)

    @property
    def wants_scores(self) -> bool:
        """The log probabilities of what is chosen are asked for."""
        return self.output_scores or self.logprobs is not None or self.is_ranked

    @property
    def bars_at_first(self) -> bool:
        """There are tokens that must not come before `min_tokens`."""
        return self.min_tokens > 0 and (not self.ignore_eos or bool(self.stop_token_ids))

    @property
    def takes_argmax(self) -> bool:
        """Always the token of the largest logit, as the model gives them, and nothing else is asked."""
        return self.greedy and self._is_bare

    @property
    def is_plain(self) -> bool:
        """A token is chosen by temperature, top_k, top_p and min_p from the logits as the model gives them, and nothing
        else is asked."""
        return (self.greedy or self.typical_p == 1.0) and self._is_bare

    @property
    def _is_bare(self) -> bool:
        return not (self.alters_logits or self.wants_scores or self.bars_at_first)


def settle_sampling(asked: SamplingParams, defaults: SamplingParams, *, room: int) -> Sampling:
    """The request's own values, else the server's, else neutral ones; max_tokens is clamped to `room` tokens.

    Raises InvalidRequestError, with `param`, for a value out of range, and for a request whose own min_tokens and
    max_tokens contradict each other. Whether tokens exist, and which ones `bad_words` are, is for who knows
    the vocabulary to say.
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
