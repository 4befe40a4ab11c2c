"""The sequences that wait for their turn."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from vfastml.text_engine.sequence import Sequence


class WaitingQueue:
    """Sequences by their order, which no two share. However many wait, to add one, to look at the first and to remove
    any of them takes at most the logarithm of that on average."""

    def __init__(self) -> None:
        self._by_order: dict[tuple[int, int, int], Sequence] = {}
        self._heap: list[tuple[int, int, int]] = []
        """The orders of all, and of some that have been removed."""

    def __len__(self) -> int:
        return len(self._by_order)

    def __iter__(self) -> Iterator[Sequence]:
        """In no order."""
        return iter(self._by_order.values())

    @property
    def first(self) -> Sequence:
        """Whose turn is next. There must be one."""
        while self._heap[0] not in self._by_order:
            heappop(self._heap)
        return self._by_order[self._heap[0]]

    def add(self, sequence: Sequence) -> None:
        """It waits from now on."""
        self._by_order[sequence.order] = sequence
        heappush(self._heap, sequence.order)

    def remove(self, sequence: Sequence) -> None:
        """It waits no more. Raises KeyError if it did not."""
        del self._by_order[sequence.order]
        if len(self._heap) > 2 * len(self._by_order):  # so that removed ones cannot pile up behind the first
            self._heap = list(self._by_order)
            heapify(self._heap)
