"""One request inside the engine: what was asked, its choices, and the text of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.text_engine.detokenizer import Decode, Detokenizer, StopStrings
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

    def accepted(self) -> Accepted:
        """The first reply."""
        ids = self.prompt_tokens if self.request.return_token_ids else None
        return Accepted(self.request_id, len(self.prompt_tokens), ids, self.num_choices)


class Choice:
    """One of a request's n texts: a sequence and what of it has been given out."""

    def __init__(self, sequence: Sequence, encoded: EncodedRequest, decode: Decode) -> None:
        self.sequence = sequence
        self._request = encoded.request
        self._prompt_tokens = encoded.prompt_tokens
        self._decode = decode
        self._stop = StopStrings(sequence.sampling.stop)
        self._texts = [encoded.echo_text] if encoded.echo_text else []
        """Not yet given out."""
        self._token_ids: list[int] = []
        self._scores: list[float] = []

    def push(self, sampled: SampledToken, end_token_ids: frozenset[int], *, out_of_time: bool) -> Delta | None:
        """Takes the sequence's newest token. Returns what is to be sent now, if anything; the last has a reason."""
        sequence, sampling, token = self.sequence, self.sequence.sampling, sampled.token
        self._note(sampled)
        if token in end_token_ids and not sampling.ignore_eos:
            return self._last("stop")
        stop_reason = self._push_text(self._detokenizer.push(token))
        if stop_reason is not None:
            return self._delta("stop", stop_reason)
        if out_of_time or sequence.num_generated >= sampling.max_tokens:
            return self._last("length")
        has_news = self._texts or self._token_ids or self._scores
        return self._delta() if self._request.stream and has_news else None

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        """Made with the first token: what decoding raises belongs to a step of this request."""
        return Detokenizer(self._decode, self._prompt_tokens)

    def _note(self, sampled: SampledToken) -> None:
        if self._request.return_token_ids:
            self._token_ids.append(sampled.token)
        if sampled.score is not None:
            self._scores.append(sampled.score)

    def _push_text(self, piece: str) -> str | None:
        honoured = self.sequence.num_generated > self.sequence.sampling.min_tokens
        text, stop_reason = self._stop.push(piece, honoured=honoured)
        if text:
            self._texts.append(text)
        return stop_reason

    def _last(self, finish_reason: str) -> Delta:
        stop_reason = self._push_text(self._detokenizer.flush())
        if stop_reason is not None:
            return self._delta("stop", stop_reason)
        self._texts.append(self._stop.flush())
        return self._delta(finish_reason)

    def _delta(self, finish_reason: str | None = None, stop_reason: str | None = None) -> Delta:
        text, self._texts = "".join(self._texts), []
        token_ids, self._token_ids = self._token_ids, []
        scores, self._scores = self._scores, []
        return Delta(
            self._request.request_id,
            self.sequence.index,
            text,
            token_ids if self._request.return_token_ids else None,
            finish_reason,
            stop_reason,
            scores if self.sequence.sampling.output_scores else None,
        )


class OpenRequest:
    """A request that the engine works on, from `add` to its terminal reply."""

    def __init__(self, encoded: EncodedRequest, decode: Decode, first: Sequence) -> None:
        self._encoded = encoded
        self._decode = decode
        self._choices = {0: Choice(first, encoded, decode)}
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
            self._choices[sequence.index] = Choice(sequence, self._encoded, self._decode)

    def note_scheduled(self) -> None:
        """It is in the step that comes now, for the first time or again."""
        if self._scheduled_s is None:
            self._scheduled_s = time.monotonic()

    def push(self, sequence: Sequence, sampled: SampledToken, end_token_ids: frozenset[int]) -> Delta | None:
        """See Choice.push."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic()
        out_of_time = self._is_out_of_time(sequence.sampling.max_time)
        delta = self._choices[sequence.index].push(sampled, end_token_ids, out_of_time=out_of_time)
        if delta is not None and delta.finish_reason is not None:
            del self._open[sequence.index]
        return delta

    def finished(self) -> Finished | None:
        """The terminal reply, once every choice has ended."""
        if self._open:
            return None
        first = self._choices[0].sequence
        usage = Usage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=sum(choice.sequence.num_generated for choice in self._choices.values()),
            cached_tokens=first.num_cached_tokens or 0,
        )
        return Finished(self._encoded.request_id, usage, self._timings())

    def _is_out_of_time(self, max_time: float | None) -> bool:
        if max_time is None or self._scheduled_s is None:
            return False
        return time.monotonic() - self._scheduled_s >= max_time

    def _timings(self) -> Timings:
        arrived = self._encoded.arrived_s
        return Timings(
            queued_s=(self._scheduled_s or arrived) - arrived,
            first_token_s=(self._first_token_s or arrived) - arrived,
            total_s=time.monotonic() - arrived,
        )
