"""What of a choice has not been given out yet."""

from __future__ import annotations

from vfastml.engine.dispatch_replies import Delta, PlaceLogprobs, ToolCallPiece
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.logprob_report import BytesOf, place_logprobs, prompt_logprobs
from vfastml.text_engine.output_parsers.output_parser import Parsed
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.sequence import Sequence

_COUNT_EVERY = 32
"""Tokens that are told of a text that is not streamed."""


class PendingDelta:
    """Collects text, and what else the request wants to know, until it is sent."""

    def __init__(self, sequence: Sequence, encoded: EncodedRequest, token_bytes: BytesOf) -> None:
        sampling = sequence.sampling
        self._sequence = sequence
        self._tokens = sequence.tokens
        self._index = sequence.index
        self._request_id = encoded.request_id
        self._token_bytes = token_bytes
        self._keeps_ids = encoded.request.return_token_ids
        self._keeps_scores = sampling.output_scores
        self._keeps_logprobs = sampling.logprobs is not None
        self._has_details = self._keeps_ids or self._keeps_scores or self._keeps_logprobs
        self._owes_prompt = sampling.prompt_logprobs is not None
        self._num_told = sequence.num_prompt_tokens
        """Tokens of the sequence, its prompt's and those that were sent."""
        self._texts = [encoded.echo_text] if encoded.echo_text else []
        self._reasoning: list[str] = []
        self._tool_calls: list[ToolCallPiece] = []
        self._token_ids: list[int] = []
        self._scores: list[float] = []
        self._logprobs: list[PlaceLogprobs] = []

    @property
    def wants_tokens(self) -> bool:
        """Something is asked for of each token, with text or without."""
        return self._has_details

    def add_token(self, sampled: SampledToken) -> None:
        """What is asked for of it."""
        if self._keeps_ids:
            self._token_ids.append(sampled.token)
        if self._keeps_scores and sampled.score is not None:
            self._scores.append(sampled.score)
        if self._keeps_logprobs:
            self._logprobs.append(place_logprobs(sampled, self._token_bytes))

    def add_text(self, text: str) -> None:
        """Of the answer."""
        if text:
            self._texts.append(text)

    def add_parsed(self, parsed: Parsed) -> None:
        """What a parser has found in the text."""
        self.add_text(parsed.text)
        if parsed.reasoning:
            self._reasoning.append(parsed.reasoning)
        self._tool_calls += parsed.tool_calls

    def news(self) -> Delta | None:
        """All of it, if there is something to send."""
        if self._texts or self._token_ids or self._scores or self._logprobs:
            return self.send()
        return self.send() if self._reasoning or self._tool_calls or self._owes_prompt else None

    def count(self) -> Delta | None:
        """For who does not stream: now and then how many tokens there are, so that it is known what they have cost,
        whatever comes of the rest."""
        length = len(self._tokens)
        num_tokens = length - self._num_told
        if num_tokens < _COUNT_EVERY:
            return None
        self._num_told = length
        return Delta(self._request_id, self._index, num_tokens=num_tokens)

    def send(self, finish_reason: str | None = None, stop_reason: str | int | None = None, /) -> Delta:
        """All of it, which is not pending any more."""
        text, self._texts = "".join(self._texts), []
        length = len(self._tokens)
        num_tokens = length - self._num_told
        self._num_told = length
        if not (self._has_details or self._owes_prompt or self._reasoning or self._tool_calls):
            return Delta(self._request_id, self._index, text, None, finish_reason, stop_reason, num_tokens=num_tokens)
        token_ids = scores = logprobs = prompt = tool_calls = None
        reasoning = ""
        if self._keeps_ids:
            token_ids, self._token_ids = self._token_ids, []
        if self._keeps_scores:
            scores, self._scores = self._scores, []
        if self._keeps_logprobs:
            logprobs, self._logprobs = self._logprobs, []
        if self._reasoning or self._tool_calls:
            reasoning, self._reasoning = "".join(self._reasoning), []
            tool_calls, self._tool_calls = self._tool_calls or None, []
        if self._owes_prompt:
            prompt, self._owes_prompt = prompt_logprobs(self._sequence.prompt_scores or (), self._token_bytes), False
        return Delta(
            self._request_id,
            self._index,
            text,
            token_ids,
            finish_reason,
            stop_reason,
            scores,
            logprobs,
            prompt,
            reasoning,
            tool_calls,
            num_tokens=num_tokens,
        )
