"""How much may wait in a model server, and what those are told who come when that much waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vfastml.errors import RateLimitError

MAX_WAITING = 256
"""Choices that may wait, unless a server is told otherwise."""
MAX_WAITING_TOKENS = 1 << 22
"""Tokens that all of them may come to, unless a server is told otherwise."""

_MIN_RETRY_S = 1.0
_MAX_RETRY_S = 60.0
"""Client libraries do not wait longer than a minute on a server's word."""
_RECENT_ENDS = 64


@dataclass(frozen=True, slots=True)
class _Place:
    choices: int
    tokens: int
    """That it may come to."""


class Admission:
    """The books of one server's queue: the oldest requests run, as many as `size_for` said, and a bounded number wait
    behind them. A request counts as often as it has choices.

    It belongs to one thread and asks nobody: a request is refused at the cost of a few comparisons.
    """

    def __init__(
        self,
        max_waiting: int = MAX_WAITING,
        max_waiting_tokens: int = MAX_WAITING_TOKENS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._max_running = 1
        self._running: dict[str, _Place] = {}
        self._waiting: dict[str, _Place] = {}
        self._num_running = 0
        self._num_waiting = 0
        self._waiting_tokens = 0
        self._since_full: deque[float] = deque(maxlen=_RECENT_ENDS)
        """When the queue began, then when each request ended; of these the most recent ones."""

    def size_for(self, max_num_seqs: int) -> None:
        """How many choices run at a time; 0, of a server that names no number, is taken for 1."""
        self._max_running = max(1, max_num_seqs)

    def check_room(self, choices: int = 1) -> None:
        """Whether a request may come in, by what is there. Raises RateLimitError, which says when to come again."""
        open_choices = self._num_running + self._num_waiting
        if open_choices + choices > self._max_running + self._max_waiting:
            raise self._full()
        if self._waiting and self._waiting_tokens >= self._max_waiting_tokens:
            raise self._full()

    def enter(self, request_id: str, choices: int, tokens: int) -> None:
        """Gives the request a place until it leaves. Raises RateLimitError, as `check_room` does, or where too many
        `tokens` would wait."""
        self.check_room(choices)
        place = _Place(choices, tokens)
        if not self._waiting and self._fits(place):  # nobody overtakes
            self._run(request_id, place)
        elif self._waiting_tokens + tokens <= self._max_waiting_tokens:
            self._wait(request_id, place)
        else:
            raise self._full()

    def leave(self, request_id: str) -> None:
        """The request has ended, however it did; without effect for one that has no place."""
        if (place := self._running.pop(request_id, None)) is not None:
            self._num_running -= place.choices
        elif request_id in self._waiting:
            self._stop_waiting(request_id)
        else:
            return
        self._since_full.append(self._clock())
        while self._waiting and self._fits(self._waiting[oldest := next(iter(self._waiting))]):
            self._run(oldest, self._stop_waiting(oldest))

    def _fits(self, place: _Place) -> bool:
        return self._num_running + place.choices <= self._max_running

    def _run(self, request_id: str, place: _Place) -> None:
        self._running[request_id] = place
        self._num_running += place.choices

    def _wait(self, request_id: str, place: _Place) -> None:
        if not self._waiting:
            self._since_full.clear()
            self._since_full.append(self._clock())
        self._waiting[request_id] = place
        self._num_waiting += place.choices
        self._waiting_tokens += place.tokens

    def _stop_waiting(self, request_id: str) -> _Place:
        place = self._waiting.pop(request_id)
        self._num_waiting -= place.choices
        self._waiting_tokens -= place.tokens
        return place

    def _full(self) -> RateLimitError:
        return RateLimitError(
            "The model has as many requests waiting as it takes: try again a little later.",
            code="queue_full",
            retry_after_s=min(_MAX_RETRY_S, max(_MIN_RETRY_S, self._half_queue_s())),
        )

    def _half_queue_s(self) -> float:
        """Until half of what waits should have begun, at the pace at which requests end. Told to come when the queue is
        empty, all would come at once to a server that has run dry."""
        if not self._since_full:
            return 0.0
        elapsed = self._clock() - self._since_full[0]
        return len(self._waiting) / 2 * elapsed / len(self._since_full)
