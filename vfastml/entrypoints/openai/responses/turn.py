"""One request in the conversation that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.tenant import TENANT
from vfastml.entrypoints.limits import MAX_MESSAGES
from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.input_items import told_apart
from vfastml.entrypoints.openai.responses.item_ids import new_response_id
from vfastml.entrypoints.openai.responses.kept_items import id_of, items_of
from vfastml.entrypoints.openai.responses.response_body import response_head
from vfastml.entrypoints.openai.responses.response_store import Owner, ResponseStore, StoredResponse
from vfastml.entrypoints.openai.responses.responses_request import ResponsesRequest
from vfastml.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked, and by whom."""

    owner: Owner
    request: ResponsesRequest
    response_id: str
    context: tuple[bytes, ...]
    """See StoredResponse: what was said before, and the input."""
    num_bytes: int
    """Of the request's body, and of what was said before."""

    @classmethod
    def of(cls, request: ResponsesRequest, body_bytes: int, store: ResponseStore, max_body_bytes: int) -> Turn:
        """The caller's, whose body was so long. Raises InvalidRequestError if what it goes on from is not in the store,
        or if that is more, with the input, than a body may be."""
        owner, previous_id = TENANT.get(), request.previous_response_id
        previous = None if previous_id is None else store.get(owner, previous_id)
        if previous_id is not None and previous is None:
            raise InvalidRequestError(
                "There is no response of that id to go on from: it is unknown, forgotten, or still under way.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        earlier = () if previous is None else previous.conversation
        items = told_apart(request.input, map(id_of, items_of(earlier)))
        context = (*earlier, msgspec.json.encode(items))
        if earlier and sum(map(len, context)) > max_body_bytes:
            raise _too_long()
        return cls(owner, request, new_response_id(), context, body_bytes + sum(map(len, earlier)))

    def work(self) -> TextGenerationReq:
        """What the engine takes. Raises InvalidRequestError for more items than could be sent at once."""
        earlier = items_of(self.context[:-1])
        if len(earlier) + len(self.request.input) > MAX_MESSAGES:
            raise _too_long()
        return self.request.to_work(self.response_id, [msgspec.json.decode(item) for item in earlier])

    def begun(self, model: str | None) -> GrowingResponse:
        """The answer, before anything is said."""
        head = response_head(self.request, self.response_id, model or "")
        return GrowingResponse(head, with_timings=bool(self.request.return_timings))

    def keep(self, ended: GrowingResponse, store: ResponseStore, log: EventLog | None = None) -> None:
        """Put the answer into the store, unless the request says not to."""
        if self.request.store is not False:
            store.put(self.owner, self._stored(ended, log))

    def _stored(self, ended: GrowingResponse, log: EventLog | None) -> StoredResponse:
        return StoredResponse(
            self.response_id,
            msgspec.json.encode(ended.body()),
            self.context,
            msgspec.json.encode(ended.output()),
            bool(self.request.background),
            log,
        )


def _too_long() -> InvalidRequestError:
    message = "The conversation has become too long to go on."
    return InvalidRequestError(message, param="previous_response_id", code="context_length_exceeded")
