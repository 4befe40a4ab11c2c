"""Log probabilities as a request gets to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vfastml.engine.dispatch_replies import PlaceLogprobs, TokenLogprob
from vfastml.text_engine.sampling import SampledToken

BytesOf = Callable[[int], bytes]
"""The text of a token, special ones included."""

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have."""


def place_logprobs(sampled: SampledToken, token_bytes: BytesOf) -> PlaceLogprobs:
    """Of a token whose log probability is known, or of the first of a text."""
    score = 0.0 if sampled.score is None else sampled.score
    top = [_logprob(token, score, token_bytes) for token, score in sampled.top]
    return PlaceLogprobs(_logprob(sampled.token, score, token_bytes), sampled.rank, top)


def prompt_logprobs(scores: Iterable[SampledToken | None], token_bytes: BytesOf) -> list[PlaceLogprobs]:
    """Of a prompt, all of whose tokens have been computed."""
    return [place_logprobs(one, token_bytes) for one in scores if one is not None]


def _logprob(token: int, score: float, token_bytes: BytesOf) -> TokenLogprob:
    return TokenLogprob(token, token_bytes(token), max(score, _LOWEST))
