"""How much may wait in a model server, and what those are told who come when that much waits."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from vfastml.engine.queue_room import leaves_room
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
    share: str


class Admission:
    """The books of one server's queue: the oldest requests run, as many as `size_for` said, and a bounded number wait
    behind them. A request counts as often as it has choices. Of what waits one share may have only so much that there
    is room for others; requests of no share may have it all.

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
        self._choices_of: Counter[str] = Counter()
        self._tokens_of: Counter[str] = Counter()
        """That wait, of each share."""
        self._since_full: deque[float] = deque(maxlen=_RECENT_ENDS)
        """When the queue began, then when each request ended; of these the most recent ones."""

    def size_for(self, max_num_seqs: int) -> None:
        """How many choices run at a time; 0, of a server that names no number, is taken for 1."""
        self._max_running = max(1, max_num_seqs)

    def check_room(self, choices: int = 1, share: str = "") -> None:
        """Whether a request may come in, by what is there. Raises RateLimitError, which says when to come again."""
        open_choices = self._num_running + self._num_waiting
        if open_choices + choices > self._max_running + self._max_waiting:
            raise self._full()
        if self._waiting and self._waiting_tokens >= self._max_waiting_tokens:
            raise self._full()
        if not self._runs_at_once(choices) and not self._leaves_room(share, choices, 0):
            raise self._full_of_one()

    def enter(self, request_id: str, choices: int, tokens: int, share: str = "") -> None:
        """Gives the request a place until it leaves. Raises RateLimitError, as `check_room` does, or where too many
        `tokens` would wait."""
        self.check_room(choices, share)
        place = _Place(choices, tokens, share)
        if self._runs_at_once(choices):
            self._run(request_id, place)
        elif self._waiting_tokens + tokens > self._max_waiting_tokens:
            raise self._full()
        elif not self._leaves_room(share, choices, tokens):
            raise self._full_of_one()
        else:
            self._wait(request_id, place)

    def leave(self, request_id: str) -> None:
        """The request has ended, however it did; without effect for one that has no place."""
        if (place := self._running.pop(request_id, None)) is not None:
            self._num_running -= place.choices
        elif request_id in self._waiting:
            self._stop_waiting(request_id)
        else:
            return
        self._since_full.append(self._clock())
        while self._waiting and self._fits(self._waiting[oldest := next(iter(self._waiting))].choices):
            self._run(oldest, self._stop_waiting(oldest))

    def _fits(self, choices: int) -> bool:
        return self._num_running + choices <= self._max_running

    def _runs_at_once(self, choices: int) -> bool:
        return not self._waiting and self._fits(choices)  # nobody overtakes

    def _leaves_room(self, share: str, choices: int, tokens: int) -> bool:
        if not share:
            return True
        free, free_tokens = self._max_waiting - self._num_waiting, self._max_waiting_tokens - self._waiting_tokens
        return leaves_room(self._choices_of[share], choices, free) and leaves_room(
            self._tokens_of[share], tokens, free_tokens
        )

    def _run(self, request_id: str, place: _Place) -> None:
        self._running[request_id] = place
        self._num_running += place.choices

    def _wait(self, request_id: str, place: _Place) -> None:
        if not self._waiting:
            self._since_full.clear()
            self._since_full.append(self._clock())
        self._waiting[request_id] = place
        self._count_waiting(place, 1)

    def _stop_waiting(self, request_id: str) -> _Place:
        place = self._waiting.pop(request_id)
        self._count_waiting(place, -1)
        return place

    def _count_waiting(self, place: _Place, sign: int) -> None:
        self._num_waiting += sign * place.choices
        self._waiting_tokens += sign * place.tokens
        self._choices_of[place.share] += sign * place.choices
        self._tokens_of[place.share] += sign * place.tokens
        if not self._choices_of[place.share]:
            del self._choices_of[place.share], self._tokens_of[place.share]

    def _full(self) -> RateLimitError:
        return self._come_again("The model has as many requests waiting as it takes: try again a little later.")

    def _full_of_one(self) -> RateLimitError:
        return self._come_again("As many of your requests wait as leave room for others: try again a little later.")

    def _come_again(self, message: str) -> RateLimitError:
        return RateLimitError(
            message,
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
