"""Whether a text of a beam search ends with a certain next token."""

from __future__ import annotations

from vfastml.text_engine.choice import Ending
from vfastml.text_engine.detokenizer import StopStrings, Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.sequence import Sequence

_CONTEXT = 64
"""Tokens before those whose text is looked at: as many as a detokenizer may read of a prompt."""
_MARGIN = 8
"""Bytes in front of the stop string, some of them of a character that began even earlier."""


class BeamEndings:
    """What `Choice` decides when a token has come, told in advance and without a trace. A token has at least one byte
    of text, so a stop string's tokens are at most as many as its bytes."""

    def __init__(
        self,
        encoded: EncodedRequest,
        end_token_ids: frozenset[int],
        vocabulary: Vocabulary,
    ) -> None:
        """`end_token_ids` are all that end this request's texts."""
        sampling = encoded.sampling
        stop = sampling.stop
        self._end_token_ids = end_token_ids
        self._max_length = len(encoded.prompt_tokens) + sampling.max_tokens
        """Of the prompt and the answer together."""
        self._stop = stop
        self._min_tokens = sampling.min_tokens
        self._vocabulary = vocabulary
        self._keeps_special = encoded.shows_special_tokens
        self._window = max((len(string.encode()) for string in stop), default=0) + _MARGIN

    def of(self, sequence: Sequence, token: int, *, out_of_time: bool) -> Ending | None:
        """How the sequence ends if this token comes next; None if it goes on."""
        if token in self._end_token_ids or self._completes_constraint(sequence, token):
            return "stop"
        if self._stop and sequence.num_generated >= self._min_tokens and self._completes_stop(sequence, token):
            return "stop"
        return "length" if out_of_time or len(sequence.tokens) + 1 >= self._max_length else None

    def _completes_constraint(self, sequence: Sequence, token: int) -> bool:
        if sequence.matcher is None:
            return False
        matcher = sequence.matcher.fork()
        matcher.accept(token)
        return matcher.is_over

    def _completes_stop(self, sequence: Sequence, token: int) -> bool:
        tokens = sequence.tokens
        start = max(sequence.num_prompt_tokens, len(tokens) - self._window)
        context = tokens[max(0, start - _CONTEXT) : start]
        detokenizer = self._vocabulary.detokenizer(context, keeps_special=self._keeps_special)
        before = "".join([detokenizer.push(old) for old in tokens[start:]])
        strings = StopStrings(self._stop)
        strings.push(before, honoured=False)
        return strings.push(detokenizer.push(token))[1] is not None
