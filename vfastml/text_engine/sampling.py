"""A request's sampling parameters, settled: every field has a value and is in range."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeVar

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError

_T = TypeVar("_T")

_GREEDY_BELOW = 1e-5
"""Temperatures; logits divided by one much smaller would overflow."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen; see SamplingParams for the meaning of each field."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    @property
    def greedy(self) -> bool:
        """Always the most probable token."""
        return self.temperature < _GREEDY_BELOW


def settle_sampling(asked: SamplingParams, defaults: SamplingParams, *, room: int) -> Sampling:
    """The request's own values, else the server's, else neutral ones; max_tokens is clamped to `room` tokens.

    Raises InvalidRequestError, with `param`, for a value out of range.
    """

    def pick(name: str, neutral: _T) -> _T:
        for source in (asked, defaults):
            value = getattr(source, name)
            if value is not None:
                return value  # type: ignore[no-any-return]
        return neutral

    sampling = Sampling(
        max_tokens=min(pick("max_tokens", room), room),
        min_tokens=pick("min_tokens", 0),
        temperature=pick("temperature", 1.0),
        top_p=pick("top_p", 1.0),
        top_k=pick("top_k", 0),
        seed=pick("seed", secrets.randbits(63)),
        stop=tuple(pick("stop", ())),
        ignore_eos=pick("ignore_eos", False),
    )
    _check(sampling)
    return sampling


def _check(sampling: Sampling) -> None:
    def require(ok: bool, param: str, range_: str) -> None:
        if not ok:
            raise InvalidRequestError(f"'{param}' must be {range_}.", param=param)

    require(sampling.max_tokens >= 1, "max_tokens", "at least 1")
    require(sampling.min_tokens >= 0, "min_tokens", "at least 0")
    require(0.0 <= sampling.temperature <= 2.0, "temperature", "between 0 and 2")
    require(0.0 < sampling.top_p <= 1.0, "top_p", "more than 0 and at most 1")
    require(sampling.top_k >= 0, "top_k", "at least 0")
    require(all(sampling.stop), "stop", "free of empty strings")
