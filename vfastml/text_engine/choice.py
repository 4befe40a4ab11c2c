"""One of a request's n texts."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from vfastml.engine.dispatch_replies import Delta
from vfastml.text_engine.detokenizer import Detokenizer, StopStrings, Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.output_parsers.output_parser import Parsed
from vfastml.text_engine.pending_delta import PendingDelta
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.sequence import Sequence

Ending = Literal["stop", "length"]


class Choice:
    """Makes text of a sequence's tokens, and decides where it ends."""

    def __init__(self, sequence: Sequence, encoded: EncodedRequest, vocabulary: Vocabulary) -> None:
        self.sequence = sequence
        self.num_reasoning_tokens = 0
        self._sampling = sequence.sampling
        self._max_length = sequence.num_prompt_tokens + sequence.sampling.max_tokens
        self._streams = encoded.request.stream
        self._encoded = encoded
        self._vocabulary = vocabulary
        self._stop = StopStrings(sequence.sampling.stop)
        self._parser = encoded.new_output_parser() if encoded.new_output_parser else None
        self._has_called = False
        self._sum_scores = 0.0
        self._pending = PendingDelta(sequence, encoded, vocabulary.token_bytes)
        self._wants_tokens = self._pending.wants_tokens or sequence.sampling.is_ranked

    @property
    def mean_score(self) -> float:
        """Log probability of its tokens, if they have scores."""
        return self._sum_scores / max(1, self.sequence.num_generated)

    def push(
        self, sampled: SampledToken, end_token_ids: frozenset[int], *, must_end: Ending | None = None
    ) -> Delta | None:
        """Takes the sequence's newest token; with `must_end` it is the last, for that reason if it has none itself.
        Returns what is to be sent now, if anything; the last has a reason."""
        if self._wants_tokens:
            self._pending.add_token(sampled)
            self._sum_scores += sampled.score or 0.0
        if sampled.token in end_token_ids and not self._sampling.ignore_eos:
            return self._end_by(sampled.token, None)
        if sampled.token in self._sampling.stop_token_ids:
            return self._end_by(sampled.token, sampled.token)
        stop_string = self._push_text(self._detokenizer.push(sampled.token))
        if self._parser is not None:
            self.num_reasoning_tokens += self._parser.in_reasoning
        if stop_string is not None:
            return self._send_last("stop", stop_string)
        if must_end is not None:
            return self._end(must_end)
        if self._sampling.repetition_detection is not None and self._goes_round_in_circles():
            return self._end("stop", "repetition")
        if len(self.sequence.tokens) >= self._max_length:
            return self._end("length")
        return self._pending.news() if self._streams else self._pending.count()

    def end_empty(self) -> Delta:
        """The only delta of a choice that gets no token."""
        return self._end("length")

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        """Made with the first token: what decoding raises belongs to a step of this request."""
        encoded = self._encoded
        return self._vocabulary.detokenizer(encoded.prompt_tokens, keeps_special=encoded.shows_special_tokens)

    def _goes_round_in_circles(self) -> bool:
        detection = self._sampling.repetition_detection
        if detection is None:
            return False
        num_generated = self.sequence.num_generated
        return num_generated >= self._sampling.min_tokens and detection.is_met(self.sequence.tokens, num_generated)

    def _push_text(self, piece: str) -> str | None:
        """Returns the stop string that ends the text, if one does."""
        stop_string = None
        if self._sampling.stop:
            honoured = self.sequence.num_generated > self._sampling.min_tokens
            piece, stop_string = self._stop.push(piece, honoured=honoured)
            if stop_string is not None and self._sampling.include_stop_str_in_output:
                piece += stop_string
        self._add(piece)
        return stop_string

    def _add(self, piece: str) -> None:
        if not piece:
            return
        if self._parser is None:
            self._pending.add_text(piece)
        else:
            self._add_parsed(self._parser.push(piece))

    def _add_parsed(self, parsed: Parsed) -> None:
        self._has_called = self._has_called or bool(parsed.tool_calls)
        self._pending.add_parsed(parsed)

    def _end_by(self, token: int, stop_reason: int | None) -> Delta:
        """The token's text is part of the answer only where that is asked for."""
        if self._sampling.include_stop_str_in_output:
            self._add(self._detokenizer.push(token))
        return self._end("stop", stop_reason)

    def _end(self, finish_reason: Ending, stop_reason: str | int | None = None) -> Delta:
        stop_string = self._push_text(self._detokenizer.flush())
        if stop_string is not None:
            return self._send_last("stop", stop_string)
        self._add(self._stop.flush())
        return self._send_last(finish_reason, stop_reason)

    def _send_last(self, finish_reason: Ending, stop_reason: str | int | None) -> Delta:
        if self._parser is not None:
            self._add_parsed(self._parser.flush())
        has_called = self._has_called and finish_reason == "stop"
        return self._pending.send("tool_calls" if has_called else finish_reason, stop_reason)
