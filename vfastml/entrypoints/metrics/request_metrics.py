"""What a gateway counts of the requests that it dispatches."""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from vfastml.engine.dispatch_replies import Delta, Timings, Usage
from vfastml.engine.dispatch_requests import DetokenizeReq, TextGenerationReq, TokenizeReq
from vfastml.engine.request_observer import ObservedRequest, SilentObserver
from vfastml.entrypoints.metrics.held_requests import HeldRequests
from vfastml.entrypoints.metrics.labelled_counter import LabelledCounter
from vfastml.entrypoints.metrics.labels import MODEL_AND_ENGINE, engine_name
from vfastml.entrypoints.metrics.text_series import TextFamilies, TextSeries

_OUTPUT = "output"
"""The finished_reason of what is no text."""


@dataclass(slots=True, eq=False)
class _Watched:
    """What has been seen of an open request."""

    series: TextSeries | None = None
    num_counted: int = 0
    """Generated tokens."""
    last_s: dict[int, float] = field(default_factory=dict)
    """When each choice's last delta came."""
    num_choices: int = 0
    """That have ended."""
    finish_reason: str = _OUTPUT
    """Of the one that ended last."""


class RequestMetrics(SilentObserver):
    """Questions about tokens are not counted: they are no work for a model. `clock` gives monotonic seconds."""

    def __init__(
        self,
        registry: CollectorRegistry | None,
        held: HeldRequests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._held = held
        self._open: dict[ObservedRequest, _Watched] = {}
        self._texts = TextFamilies(registry)
        self._successes = LabelledCounter(
            "request_success",
            "Requests that were answered in full, by how the last of their choices ended.",
            (*MODEL_AND_ENGINE, "finished_reason"),
            registry,
        )
        self._failures = LabelledCounter(
            "request_failures",
            "Requests that were dispatched and failed, by the kind of the error.",
            (*MODEL_AND_ENGINE, "kind"),
            registry,
        )
        self._of_keys = _KeyMetrics(registry)

    def on_dispatched(self, observed: ObservedRequest) -> None:
        self._open[observed] = _Watched()
        self._held.note_soon()  # it is held after this, if it is

    def on_accepted(self, observed: ObservedRequest) -> None:
        self._held.note()
        if (watched := self._open.get(observed)) is not None:  # a request that moved begins again
            watched.series, watched.num_counted = None, 0
            watched.last_s.clear()

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        watched = self._open.get(observed)
        if watched is None:
            return
        if delta.finish_reason is not None:
            watched.num_choices += 1
            watched.finish_reason = delta.finish_reason
        if not (number := delta.num_tokens):
            return
        now_s, index = self._clock(), delta.index
        tally = (watched.series or self._series(observed, watched)).tokens
        if (before_s := watched.last_s.get(index)) is not None:
            tally.add_interval((now_s - before_s) / number)
        watched.last_s[index] = now_s
        watched.num_counted += number
        tally.num_tokens += number
        if now_s > tally.due_s:
            tally.settle(now_s)

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        self._held.note()
        watched = self._open.pop(observed, None) or _Watched()
        if isinstance(observed.request, TokenizeReq | DetokenizeReq):
            return None
        labels = (observed.model or "", engine_name(observed.endpoint))
        if observed.error is not None:
            self._failures.inc(*labels, observed.error.kind)
        else:
            self._successes.inc(*labels, watched.finish_reason)
        if isinstance(observed.request, TextGenerationReq):
            self._on_text_ended(observed, watched)
        elif observed.error is None:
            self._texts.observe_other(*labels, self._clock() - observed.dispatched_s)
        return None

    def _series(self, observed: ObservedRequest, watched: _Watched) -> TextSeries:
        watched.series = self._texts.of(observed.model or "", engine_name(observed.endpoint))
        return watched.series

    def _on_text_ended(self, observed: ObservedRequest, watched: _Watched) -> None:
        usage = observed.usage_so_far
        self._of_keys.note(observed, usage)
        if observed.endpoint is None:
            return
        series = watched.series or self._series(observed, watched)
        series.prompt_tokens.inc(usage.prompt_tokens)
        # What came without a count, or was never shown: the texts that `best_of` dropped.
        series.tokens.num_tokens += max(0, usage.completion_tokens - watched.num_counted)
        now_s = self._clock()
        series.tokens.settle(now_s)
        if observed.timings is not None:
            _observe_times(series, observed.timings, usage, now_s - observed.dispatched_s, watched.num_choices)


class _KeyMetrics:
    """By the name of the API key."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        def counter(name: str, says: str) -> LabelledCounter:
            return LabelledCounter(f"key_{name}", says, ("key",), registry)

        self._requests = counter(
            "requests", "Text requests of this API key that have ended; failed ones and those of no quota or model too."
        )
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens of this API key's accepted requests.")
        self._generation_tokens = counter("generation_tokens", "Tokens generated for this API key's requests.")

    def note(self, observed: ObservedRequest, usage: Usage) -> None:
        if observed.tenant is not None:
            key = observed.tenant.name
            self._requests.inc(key)
            self._prompt_tokens.inc(key, by=usage.prompt_tokens)
            self._generation_tokens.inc(key, by=usage.completion_tokens)


def _observe_times(series: TextSeries, timings: Timings, usage: Usage, e2e_s: float, num_choices: int) -> None:
    series.e2e_latency.observe(e2e_s)
    series.queue_time.observe(timings.queued_s)
    if usage.completion_tokens == 0:
        return
    decode_s = max(0.0, timings.total_s - timings.first_token_s)
    # From the end backwards: so it has what came before the model server, and is the same whether streamed or not.
    series.time_to_first_token.observe(max(0.0, e2e_s - decode_s))
    series.prefill_time.observe(max(0.0, timings.first_token_s - timings.queued_s))
    series.decode_time.observe(decode_s)
    num_later = usage.completion_tokens - num_choices
    if num_later > 0:
        series.time_per_output_token.observe(decode_s * max(1, num_choices) / num_later)
