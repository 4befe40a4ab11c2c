"""One request inside the engine: what was asked, its choices, and the text of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.text_engine.detokenizer import Detokenizer, NewDetokenizer, StopStrings
from vfastml.text_engine.sampling import SampledToken, Sampling
from vfastml.text_engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A checked request with its prompt as tokens: what the engine takes."""

    request: TextGenerationReq
    prompt_tokens: list[int]
    sampling: Sampling
    echo_text: str = ""
    """What each choice's text starts with."""
    num_choices: int = 1
    """The request's n, or the server's default."""
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.request.request_id

    @property
    def num_tokens(self) -> int:
        """That it may come to: its prompt's, and the most that each of its choices may get."""
        return len(self.prompt_tokens) + self.num_choices * self.sampling.max_tokens

    def accepted(self) -> Accepted:
        """The first reply."""
        ids = self.prompt_tokens if self.request.return_token_ids else None
        return Accepted(self.request_id, len(self.prompt_tokens), ids, self.num_choices)


class Choice:
    """One of a request's n texts: a sequence and what of it has been given out."""

    def __init__(self, sequence: Sequence, encoded: EncodedRequest, new_detokenizer: NewDetokenizer) -> None:
        self.sequence = sequence
        self._index = sequence.index
        self._sampling = sequence.sampling
        self._max_length = sequence.num_prompt_tokens + sequence.sampling.max_tokens
        self._request_id = encoded.request.request_id
        self._streams = encoded.request.stream
        self._keeps_ids = encoded.request.return_token_ids
        self._keeps_details = self._keeps_ids or sequence.sampling.output_scores
        self._prompt_tokens = encoded.prompt_tokens
        self._new_detokenizer = new_detokenizer
        self._stop = StopStrings(sequence.sampling.stop)
        self._texts = [encoded.echo_text] if encoded.echo_text else []
        """Not yet given out."""
        self._token_ids: list[int] = []
        self._scores: list[float] = []

    def push(self, sampled: SampledToken, end_token_ids: frozenset[int], *, out_of_time: bool) -> Delta | None:
        """Takes the sequence's newest token. Returns what is to be sent now, if anything; the last has a reason."""
        if self._keeps_details:
            self._note(sampled)
        if sampled.token in end_token_ids and not self._sampling.ignore_eos:
            return self._last("stop")
        stop_reason = self._push_text(self._detokenizer.push(sampled.token))
        if stop_reason is not None:
            return self._delta("stop", stop_reason)
        if out_of_time or len(self.sequence.tokens) >= self._max_length:
            return self._last("length")
        has_news = self._texts or self._token_ids or self._scores
        return self._delta() if self._streams and has_news else None

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        """Made with the first token: what decoding raises belongs to a step of this request."""
        return self._new_detokenizer(self._prompt_tokens)

    def _note(self, sampled: SampledToken) -> None:
        if self._keeps_ids:
            self._token_ids.append(sampled.token)
        if sampled.score is not None:
            self._scores.append(sampled.score)

    def _push_text(self, piece: str) -> str | None:
        stop_reason = None
        if self._sampling.stop:
            honoured = self.sequence.num_generated > self._sampling.min_tokens
            piece, stop_reason = self._stop.push(piece, honoured=honoured)
        if piece:
            self._texts.append(piece)
        return stop_reason

    def _last(self, finish_reason: str) -> Delta:
        stop_reason = self._push_text(self._detokenizer.flush())
        if stop_reason is not None:
            return self._delta("stop", stop_reason)
        self._texts.append(self._stop.flush())
        return self._delta(finish_reason)

    def _delta(self, finish_reason: str | None = None, stop_reason: str | None = None) -> Delta:
        text, self._texts = "".join(self._texts), []
        token_ids = scores = None
        if self._keeps_details:
            if self._keeps_ids:
                token_ids, self._token_ids = self._token_ids, []
            if self._sampling.output_scores:
                scores, self._scores = self._scores, []
        return Delta(self._request_id, self._index, text, token_ids, finish_reason, stop_reason, scores)


class OpenRequest:
    """A request that the engine works on, from `add` to its terminal reply."""

    def __init__(self, encoded: EncodedRequest, new_detokenizer: NewDetokenizer, first: Sequence) -> None:
        self._encoded = encoded
        self._new_detokenizer = new_detokenizer
        self._choices = {0: Choice(first, encoded, new_detokenizer)}
        self._open = {0: first}
        self._first_token_s: float | None = None
        self._scheduled_s: float | None = None

    @property
    def open_sequences(self) -> Iterable[Sequence]:
        """Of the choices that have not ended."""
        return self._open.values()

    def add_choices(self, sequences: list[Sequence]) -> None:
        """The forks of the first. They are open even if one of them cannot become a choice."""
        self._open.update((sequence.index, sequence) for sequence in sequences)
        for sequence in sequences:
            self._choices[sequence.index] = Choice(sequence, self._encoded, self._new_detokenizer)

    def note_scheduled(self) -> None:
        """It is in the step that comes now, for the first time or again."""
        if self._scheduled_s is None:
            self._scheduled_s = time.monotonic()

    def push(self, sequence: Sequence, sampled: SampledToken, end_token_ids: frozenset[int]) -> Delta | None:
        """See Choice.push."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic()
        max_time = sequence.sampling.max_time
        out_of_time = max_time is not None and self._is_out_of_time(max_time)
        delta = self._choices[sequence.index].push(sampled, end_token_ids, out_of_time=out_of_time)
        if delta is not None and delta.finish_reason is not None:
            del self._open[sequence.index]
        return delta

    @property
    def has_ended(self) -> bool:
        """Every choice has."""
        return not self._open

    def finished(self) -> Finished:
        """The terminal reply of a request that has ended."""
        first = self._choices[0].sequence
        usage = Usage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=sum(choice.sequence.num_generated for choice in self._choices.values()),
            cached_tokens=first.num_cached_tokens or 0,
        )
        return Finished(self._encoded.request_id, usage, self._timings())

    def _is_out_of_time(self, max_time: float) -> bool:
        return self._scheduled_s is not None and time.monotonic() - self._scheduled_s >= max_time

    def _timings(self) -> Timings:
        arrived = self._encoded.arrived_s
        return Timings(
            queued_s=(self._scheduled_s or arrived) - arrived,
            first_token_s=(self._first_token_s or arrived) - arrived,
            total_s=time.monotonic() - arrived,
        )
