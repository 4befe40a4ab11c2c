"""Who waits, and whose turn is next: between shares by the tokens that they have had, within one by order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace, nlargest
from operator import itemgetter

from vfastml.text_engine.sequence import Sequence
from vfastml.text_engine.waiting_queue import WaitingQueue

_MOST_REMEMBERED = 1024
"""Shares that have nothing in the engine any more, but have had more than those that wait."""
_FEW = 64
_RECENT = 1 / 8
"""Of a share's mean length: the part that its newest text has in it."""


class Share:
    """Sequences that have one part of the engine together."""

    __slots__ = ("counter", "mean_length", "name", "num_open", "queue", "since", "weight")

    def __init__(self, name: str, counter: float, mean_length: float) -> None:
        self.name = name
        self.weight = 1.0
        self.counter = counter
        """Tokens that it has had, divided by its weight."""
        self.num_open = 0
        """Sequences of it, those that wait and those that do not."""
        self.mean_length = mean_length
        """Tokens that its texts get, by those that have ended."""
        self.queue = WaitingQueue()
        self.since = 0
        """When it began to wait: of two that have had as much, the earlier one goes first."""


class FairQueue:
    """A Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). A share's counter
    grows by the prompt tokens that are computed for it and by the tokens that are generated for it, each of the same
    worth: what is shared is tokens, as users and their bills count them. The waiting share with the least goes first.

    A share that begins to wait is lifted to the least counter of those that wait: that it was idle is no credit. Behind
    them it may be by no more than what its texts in the engine will come to, for it may wait for nothing only because
    its clients are on their way. Where nobody waits everybody has what he asks for: who waits next begins with new
    counters for all.

    Nothing is counted while there is but one share.
    """

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        """Those that have sequences here."""
        self._gone: dict[str, float] = {}
        """The counters of those that had."""
        self._num_waiting = 0
        self._num_joined = 0
        self._mean_length = 0.0
        self._forget_beyond = _FEW

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        """In no order."""
        for share in self._shares.values():
            yield from share.queue

    @property
    def is_shared(self) -> bool:
        """There is more than one share."""
        return len(self._shares) + len(self._gone) > 1

    def counter_of(self, sequence: Sequence) -> float:
        """Of its share: what goes before `order` in saying who is first."""
        return self._shares[sequence.share].counter

    def enter(self, sequence: Sequence) -> None:
        """A new sequence waits from now on."""
        share = self._shares.get(sequence.share)
        if share is None:
            counter = self._gone.pop(sequence.share, 0.0)
            share = self._shares[sequence.share] = Share(sequence.share, counter, self._mean_length)
        share.weight = sequence.share_weight
        if not share.queue:
            self._join(share)
        share.num_open += 1
        self.add(sequence)

    def enter_beside(self, sequence: Sequence) -> None:
        """A new sequence that does not wait: it has split off another one of its share."""
        self._shares[sequence.share].num_open += 1

    def leave(self, sequence: Sequence) -> None:
        """It has ended, and does not wait."""
        share = self._shares[sequence.share]
        share.num_open -= 1
        share.mean_length += _RECENT * (sequence.num_generated - share.mean_length)
        self._mean_length = share.mean_length
        if share.num_open == 0:
            del self._shares[share.name]
            self._gone[share.name] = share.counter
            if len(self._gone) > self._forget_beyond:
                self._forget()

    def add(self, sequence: Sequence) -> None:
        """It waits again, from now on."""
        self._shares[sequence.share].queue.add(sequence)
        self._num_waiting += 1

    def remove(self, sequence: Sequence) -> None:
        """It waits no more. Raises KeyError if it did not."""
        self._shares[sequence.share].queue.remove(sequence)
        self._num_waiting -= 1

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """Its share has had so many tokens more."""
        share = self._shares[sequence.share]
        share.counter += num_tokens / share.weight

    def line_up(self, seated: Iterable[Sequence]) -> Line:
        """Who goes first, as things are; `seated` are all that have seats already."""
        shares = [share for share in self._shares.values() if share.queue]
        if len(shares) == 1:
            return Line(shares, {})
        seats: Counter[str] = Counter()
        for sequence in seated:
            seats[sequence.share] += sequence.num_seats
        return Line(shares, seats)

    def _join(self, share: Share) -> None:
        self._num_joined += 1
        share.since = self._num_joined
        if self._num_waiting:
            credit = share.num_open * share.mean_length / share.weight
            share.counter = max(share.counter, self._least() - credit)
        else:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._gone.clear()
        for share in self._shares.values():
            share.counter = 0.0

    def _least(self) -> float:
        return min((share.counter for share in self._shares.values() if share.queue), default=math.inf)

    def _forget(self) -> None:
        """Those that would begin like anybody else if they came back."""
        least = self._least()
        ahead = [(name, counter) for name, counter in self._gone.items() if counter > least]
        self._gone = dict(nlargest(_MOST_REMEMBERED, ahead, key=itemgetter(1)))
        self._forget_beyond = 2 * len(self._gone) + _FEW


class Line:
    """The shares that wait, in one step. Texts are long, and who has got a seat keeps it: so a share counts as if it
    had already had what its seats will still bring it, half a text each on average. Otherwise whoever is a little
    behind would take all seats that come free, until he is far ahead."""

    def __init__(self, shares: list[Share], seats: dict[str, int]) -> None:
        self._seats = seats
        self._heap = [(self._turn(share), share.since, share) for share in shares]
        heapify(self._heap)

    @property
    def first(self) -> Sequence:
        """Whose turn is next. There must be one."""
        return self._heap[0][2].queue.first

    def went(self, sequence: Sequence) -> None:
        """The first has got its seats, and waits no more."""
        _, since, share = self._heap[0]
        self._seats[share.name] = self._seats.get(share.name, 0) + sequence.num_seats
        if share.queue:
            heapreplace(self._heap, (self._turn(share), since, share))
        else:
            heappop(self._heap)

    def _turn(self, share: Share) -> float:
        num_expected = self._seats.get(share.name, 0) * share.mean_length / 2
        return share.counter + num_expected / share.weight
