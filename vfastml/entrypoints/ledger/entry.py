"""One line of the books: a request that has ended, and what it has used."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from vfastml.engine.dispatch_requests import ImageToImageReq, OneShotReq, TextGenerationReq, WorkReq
from vfastml.engine.request_observer import ObservedRequest
from vfastml.entrypoints.ledger.key_id import key_id_of
from vfastml.errors import RequestCancelledError, VFastMLError

Outcome = Literal["finished", "cancelled", "failed"]

_KINDS: dict[type[WorkReq], str] = {
    TextGenerationReq: "text_generation",
    OneShotReq: "one_shot",
    ImageToImageReq: "image_to_image",
}
_MOST_TOKENS = 1 << 40
"""More, or less than none, is a mistake of a model server, and must not spoil a sum."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The columns of a row, in their order."""

    request_id: str
    ended_ms: int
    """Unix time."""
    key_id: str
    key_name: str
    model: str
    kind: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    outcome: Outcome
    error: str | None
    """Of one that failed: the name of its class."""
    queued_ms: float | None
    first_token_ms: float | None
    total_ms: float
    """In the gateway; the two before are the model server's, and not known of what did not finish."""

    @property
    def tokens(self) -> int:
        """What counts for a quota."""
        return self.prompt_tokens + self.completion_tokens


def is_booked(request: WorkReq) -> bool:
    """Whether it is work for a model; counting tokens is not."""
    return type(request) in _KINDS


def entry_of(observed: ObservedRequest, now_s: float) -> Entry | None:
    """The entry for a request that has ended, at that Unix time; None if it is not booked: it is no work for a model,
    or was refused before a server accepted it. One-shot servers do not say that they accept, so of theirs only what was
    answered is booked."""
    if not is_booked(observed.request) or not _was_served(observed):
        return None
    usage, timings = observed.usage_so_far, observed.timings
    return Entry(
        request_id=observed.request_id,
        ended_ms=int(now_s * 1000),
        key_id=key_id_of(observed.tenant),
        key_name="" if observed.tenant is None else observed.tenant.name,
        model=observed.model or "",
        kind=_KINDS[type(observed.request)],
        prompt_tokens=_count(usage.prompt_tokens),
        completion_tokens=_count(usage.completion_tokens),
        cached_tokens=_count(usage.cached_tokens),
        reasoning_tokens=_count(usage.reasoning_tokens),
        outcome=_outcome(observed.error),
        error=None if observed.error is None else observed.error.kind,
        queued_ms=None if timings is None else _ms(timings.queued_s),
        first_token_ms=None if timings is None else _ms(timings.first_token_s),
        total_ms=_ms(time.monotonic() - observed.dispatched_s),
    )


def _was_served(observed: ObservedRequest) -> bool:
    return observed.error is None or observed.num_prompt_tokens > 0 or observed.num_generated_tokens > 0


def _outcome(error: VFastMLError | None) -> Outcome:
    if error is None:
        return "finished"
    return "cancelled" if isinstance(error, RequestCancelledError) else "failed"


def _count(tokens: int) -> int:
    return max(0, min(tokens, _MOST_TOKENS))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
