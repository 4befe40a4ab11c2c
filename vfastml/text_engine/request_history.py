"""What has happened to a request since it arrived, and when."""

from __future__ import annotations

import time
from collections import deque

from vfastml.engine.dispatch_replies import Finished, Mark, Timings, Usage
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.sequence import Sequence

_FIRST_MARKS = 192
_LAST_MARKS = 64


class RequestHistory:
    """Of one request in the engine. Marks are kept only where the request asks for them: the first ones, and of the
    others the last ones."""

    def __init__(self, encoded: EncodedRequest) -> None:
        self._request_id = encoded.request_id
        self._arrived_s = encoded.arrived_s
        self._scheduled_s: float | None = None
        self.has_token = False
        self._first_token_s: float | None = None
        self._num_preemptions = 0
        self._is_traced = encoded.request.is_traced
        self._first_marks: list[Mark] = []
        self._last_marks: deque[Mark] = deque(maxlen=_LAST_MARKS)

    def note_scheduled(self, sequence: Sequence) -> None:
        """It is in the step that comes now, for the first time or again."""
        if self._scheduled_s is None:
            self._scheduled_s = time.monotonic()
            self.mark("scheduled", sequence, sequence.num_cached_tokens or 0)
        else:
            self.mark("resumed", sequence, len(sequence.tokens))

    def note_first_token(self, sequence: Sequence) -> None:
        """The first token has come."""
        self.has_token = True
        self._first_token_s = time.monotonic()
        self.mark("first_token", sequence)

    def note_preempted(self, sequence: Sequence) -> None:
        """It has lost its blocks, and will be computed anew."""
        self._num_preemptions += 1
        self.mark("preempted", sequence, len(sequence.tokens))

    def mark(self, name: str, sequence: Sequence, num_tokens: int = 0) -> None:
        """Something has happened to this choice or beam, and now; noted if the request is traced."""
        if not self._is_traced:
            return
        mark = Mark(name, time.monotonic() - self._arrived_s, sequence.index, num_tokens)
        (self._first_marks if len(self._first_marks) < _FIRST_MARKS else self._last_marks).append(mark)

    def is_out_of_time(self, max_time: float | None) -> bool:
        """Whether it was first scheduled so many seconds ago."""
        if max_time is None or self._scheduled_s is None:
            return False
        return time.monotonic() - self._scheduled_s >= max_time

    def finished(self, first: Sequence, usage: Usage) -> Finished:
        """The terminal reply of a request that ends now; `first` is its first choice or beam."""
        self.mark("finished", first, usage.completion_tokens)
        return Finished(self._request_id, usage, self._timings(), [*self._first_marks, *self._last_marks])

    def _timings(self) -> Timings:
        arrived = self._arrived_s
        return Timings(
            queued_s=(self._scheduled_s or arrived) - arrived,
            first_token_s=(self._first_token_s or arrived) - arrived,
            total_s=time.monotonic() - arrived,
            num_preemptions=self._num_preemptions,
        )
