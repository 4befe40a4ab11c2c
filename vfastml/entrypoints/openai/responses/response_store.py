"""Responses that can be fetched and gone on from, in this gateway's memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.limits import MAX_STORED_BYTES, MAX_STORED_RESPONSES
from vfastml.entrypoints.openai.responses.event_log import EventLog

STORED_S = 24 * 3600.0
"""How long a response is kept after it was last asked for."""

Owner = Tenant | None
"""The caller's tenant: see engine/tenant.py."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that has ended. JSON, because the garbage collector need not look into it."""

    id: str
    body: bytes
    context: tuple[bytes, ...]
    """Items, one list for each turn of the conversation: all that the model was given but its instructions."""
    output: bytes
    """The items that it answered."""
    in_background: bool
    log: EventLog | None = None
    """Of one that was in the background and streamed."""

    @property
    def conversation(self) -> tuple[bytes, ...]:
        """What goes ahead of the next turn."""
        return (*self.context, self.output)

    def num_bytes(self) -> int:
        """As if it shared nothing with the responses that it goes on from."""
        logged = 0 if self.log is None else self.log.num_bytes
        return len(self.body) + sum(map(len, self.conversation)) + logged


class ResponseStore:
    """Keeps so many, so much and so long; who has the most loses first what has not been asked for the longest. Nobody
    is shown what is another owner's. `clock` gives monotonic seconds."""

    def __init__(
        self,
        max_responses: int = MAX_STORED_RESPONSES,
        max_bytes: int = MAX_STORED_BYTES,
        kept_s: float = STORED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._kept_s = kept_s
        self._clock = clock
        self._shelves: dict[Owner, _Shelf] = {}

    def put(self, owner: Owner, response: StoredResponse) -> None:
        """Keeps it, or not, if it alone is more than is kept at all."""
        self._drop_old()
        if response.num_bytes() > self._max_bytes:
            return
        self._shelves.setdefault(owner, _Shelf()).put(response, self._clock())
        self._shrink(len, self._max_responses)
        self._shrink(lambda shelf: shelf.num_bytes, self._max_bytes)

    def get(self, owner: Owner, response_id: str) -> StoredResponse | None:
        """The owner's response of that id."""
        self._drop_old()
        shelf = self._shelves.get(owner)
        return None if shelf is None else shelf.get(response_id, self._clock())

    def remove(self, owner: Owner, response_id: str) -> bool:
        """Whether it was there."""
        shelf = self._shelves.get(owner)
        return shelf is not None and shelf.remove(response_id)

    def _shrink(self, size_of: Callable[[_Shelf], int], most: int) -> None:
        while sum(map(size_of, self._shelves.values())) > most:
            max(self._shelves.values(), key=size_of).drop_oldest()

    def _drop_old(self) -> None:
        for owner, shelf in list(self._shelves.items()):
            shelf.drop_before(self._clock() - self._kept_s)
            if not shelf:
                del self._shelves[owner]


class _Shelf:
    """One owner's responses, the one not asked for the longest first."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._entries: OrderedDict[str, tuple[float, StoredResponse]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, response: StoredResponse, now: float) -> None:
        self._entries[response.id] = (now, response)
        self.num_bytes += response.num_bytes()

    def get(self, response_id: str, now: float) -> StoredResponse | None:
        if response_id not in self._entries:
            return None
        _, response = self._entries.pop(response_id)
        self._entries[response_id] = (now, response)
        return response

    def remove(self, response_id: str) -> bool:
        _, response = self._entries.pop(response_id, (0.0, None))
        if response is None:
            return False
        self.num_bytes -= response.num_bytes()
        return True

    def drop_oldest(self) -> None:
        self.remove(next(iter(self._entries)))

    def drop_before(self, moment: float) -> None:
        while self._entries and next(iter(self._entries.values()))[0] < moment:
            self.drop_oldest()
