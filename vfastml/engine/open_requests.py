"""The requests that have no terminal yet: where each was sent, which of them wait for a server, and how each one ends.

A place for the answer is registered before anything is sent, and ends exactly once: with the server's terminal, or with
an error that is decided here (cancelled, deadline, server lost, no server, shutting down).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from vfastml.engine.deadline import time_left_s
from vfastml.engine.dispatch_replies import Accepted, Delta, Failed, ServedModel, Terminal
from vfastml.engine.dispatch_requests import CancelReq, TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.queue_room import leaves_room
from vfastml.engine.request_handles import HandleIndex
from vfastml.engine.server_table import ServerTable
from vfastml.engine.tenant import Tenant
from vfastml.engine.wire import encode_request
from vfastml.errors import (
    DeadlineExceededError,
    InternalServerTooBusyError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitError,
    RequestCancelledError,
    ServerLostError,
    VFastMLError,
)

_LOADING_RETRY_AFTER_S = 5.0
_LOST_RETRY_AFTER_S = 1.0
_TURNED_AWAY = (InternalServerTooBusyError.__name__, RateLimitError.__name__)


@dataclass(slots=True, eq=False)
class _Place:
    """Where the answer to one open request goes."""

    task: DispatchTask
    frame: bytes | None
    """The encoded request, while it may still be sent: until its first delta, or its second server."""
    endpoint: str | None = None
    """Where it was sent; None while it is held."""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return self.task.request_id


class OpenRequests:
    """The open requests of one gateway. `send(endpoint, frame)` says whether that server can take the frame now;
    `send_surely` sends it as soon as it can, unless the server is lost before."""

    def __init__(
        self,
        table: ServerTable,
        send: Callable[[str, bytes], bool],
        send_surely: Callable[[str, bytes], None],
        *,
        hold_s: float,
        max_held: int,
    ) -> None:
        self._table = table
        self._send = send
        self._send_surely = send_surely
        self._hold_s = hold_s
        self._max_held = max_held
        self._places: dict[str, _Place] = {}
        self._held: dict[str, _Place] = {}
        self._handles = HandleIndex()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def held(self) -> int:
        """How many of them wait for a server to come up."""
        return len(self._held)

    def add(self, task: DispatchTask) -> None:
        """Send the task's request, or hold it until a server comes up; what prevents both becomes the task's error. It
        fails at its deadline, or at that of the caller for whom this is called."""
        try:
            place = self._register(task)
        except VFastMLError as error:
            task.fail(error)
            return
        self._send_or_hold(place)

    def cancel(self, task: DispatchTask) -> None:
        """End the task and tell its server; without effect when it has ended."""
        place = self._places.get(task.request_id)
        if place is not None and place.task is task:
            self._abandon(place, RequestCancelledError())

    def cancel_by_handle(self, handle: str) -> int:
        """End all tasks whose requests have that handle, and tell their servers. Returns how many there were."""
        places = [self._places[request_id] for request_id in self._handles.find(handle)]
        for place in places:
            self._abandon(place, RequestCancelledError())
        return len(places)

    def flush_held(self) -> None:
        """Look again at each held request, oldest first: the servers have changed."""
        for place in list(self._held.values()):
            self._send_or_hold(place)

    def move_from(self, endpoint: str, *, cancel_there: bool = False) -> None:
        """That server is lost, or given up: each of its requests goes to another one, or fails."""
        for place in [place for place in self._places.values() if place.endpoint == endpoint]:
            if cancel_there:
                self._cancel_in_server(place)
            if not self._move(place):
                self._fail(place, ServerLostError("The model server was lost.", retry_after_s=_LOST_RETRY_AFTER_S))

    def end_those_of(self, tenant: Tenant, error: VFastMLError) -> None:
        """End every task of that tenant with that error, and tell their servers."""
        for place in [place for place in self._places.values() if place.task.tenant == tenant]:
            self._abandon(place, error)

    def fail_all(self, error: VFastMLError) -> None:
        """End every task with that error."""
        for place in list(self._places.values()):
            self._fail(place, error)

    # What the servers say. A reply that comes from elsewhere than where its request is now is late, and ignored.

    def on_accepted(self, endpoint: str, accepted: Accepted) -> None:
        if (place := self._place_at(endpoint, accepted.request_id)) is not None:
            place.task.add_accepted(accepted)

    def on_deltas(self, endpoint: str, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            if (place := self._place_at(endpoint, delta.request_id)) is not None:
                if not delta.only_counts:
                    place.frame = None
                place.task.add_delta(delta)

    def on_terminal(self, endpoint: str, terminal: Terminal) -> None:
        if (place := self._place_at(endpoint, terminal.request_id)) is None:
            return
        if _is_turned_away(terminal) and self._move(place, without=(endpoint,)):
            return
        self._end(place)
        place.task.finish(terminal)

    def _place_at(self, endpoint: str, request_id: str) -> _Place | None:
        place = self._places.get(request_id)
        return place if place is not None and place.endpoint == endpoint else None

    # The way out.

    def _register(self, task: DispatchTask) -> _Place:
        if task.request_id in self._places:
            raise InvalidRequestError("A request with this id is already under way.")
        place = _Place(task, encode_request(task.request))
        self._set_deadline(place)
        self._places[task.request_id] = place
        if isinstance(task.request, TextGenerationReq):
            self._handles.add(task.request_id, task.request.handles)
        return place

    def _set_deadline(self, place: _Place) -> None:
        request = place.task.request
        own_s = request.deadline_s if isinstance(request, TextGenerationReq) else None
        if own_s is not None and not own_s > 0:  # written so that NaN is refused too
            raise InvalidRequestError("'deadline_s' must be a positive number.", param="deadline_s")
        left_s = time_left_s(own_s)
        if left_s is None:
            return
        if left_s <= 0:
            raise _too_late()
        self._call_later(place, left_s, self._on_deadline)

    def _send_or_hold(self, place: _Place) -> None:
        try:
            if not self._try_send(place):
                self._hold(place)
        except VFastMLError as error:
            self._fail(place, error)

    def _try_send(self, place: _Place, without: Collection[str] = ()) -> bool:
        """Whether a server has it; False: it has to wait for one. Raises what `ServerTable.pick` raises, and
        PermissionDeniedError for a model that is not the tenant's."""
        name = place.task.model or place.task.request.model_uri
        tried = set(without)
        while (endpoint := self._table.pick(name, without=tried)) is not None:
            _check_allowed(place.task.tenant, self._table.model_at(endpoint, name))
            if place.frame is not None and self._send(endpoint, place.frame):
                place.task.model = self._table.model_id(endpoint, name)
                place.task.endpoint = endpoint
                self._assign(place, endpoint)
                return True
            tried.add(endpoint)
        return False

    def _hold(self, place: _Place) -> None:
        if place.request_id in self._held:
            return
        if len(self._held) >= self._max_held:
            raise _still_loading()
        tenant = place.task.tenant
        num_held = sum(other.task.tenant == tenant for other in self._held.values())
        if tenant is not None and not leaves_room(num_held, 1, self._max_held - len(self._held)):
            raise _held_too_many()
        self._held[place.request_id] = place
        self._call_later(place, self._hold_s, self._on_held_too_long)

    def _move(self, place: _Place, without: Collection[str] = ()) -> bool:
        """Whether another server has it now: only before anything of the answer has come, and only once."""
        if place.frame is None:
            return False
        with suppress(VFastMLError):
            if self._try_send(place, without):
                place.frame = None
                return True
        return False

    def _assign(self, place: _Place, endpoint: str | None) -> None:
        """The one writer of `endpoint`, so that the table's counts and the held list agree with it."""
        if place.endpoint is not None:
            self._table.on_ended(place.endpoint)
        if endpoint is not None:
            self._table.on_sent(endpoint)
        self._held.pop(place.request_id, None)
        place.endpoint = endpoint

    def _call_later(self, place: _Place, delay_s: float, callback: Callable[[_Place], None]) -> None:
        place.timers.append(asyncio.get_running_loop().call_later(delay_s, callback, place))

    # The end.

    def _end(self, place: _Place) -> None:
        """Every place ends through here, whatever the reason."""
        del self._places[place.request_id]
        self._handles.remove(place.request_id)
        self._assign(place, None)
        for timer in place.timers:
            timer.cancel()

    def _fail(self, place: _Place, error: VFastMLError) -> None:
        self._end(place)
        place.task.fail(error)

    def _abandon(self, place: _Place, error: VFastMLError) -> None:
        self._cancel_in_server(place)
        self._fail(place, error)

    def _cancel_in_server(self, place: _Place) -> None:
        # What the server may still send for the request is ignored.
        if place.endpoint is not None:
            self._send_surely(place.endpoint, encode_request(CancelReq(request_id=place.request_id)))

    def _on_deadline(self, place: _Place) -> None:
        self._abandon(place, _too_late())

    def _on_held_too_long(self, place: _Place) -> None:
        if place.request_id in self._held:
            self._fail(place, _still_loading())


def _is_turned_away(terminal: Terminal) -> bool:
    """The server is draining or full, and has done nothing for the request: another one may have room."""
    return isinstance(terminal, Failed) and terminal.kind in _TURNED_AWAY


def _check_allowed(tenant: Tenant | None, model: ServedModel | None) -> None:
    # Only here is it settled which model a name means, or no name: requests that were held pass here too.
    if tenant is not None and model is not None and not tenant.may_use(model):
        raise PermissionDeniedError("This API key may not use that model.", param="model", code="model_not_allowed")


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError("The request's deadline has passed.")


def _held_too_many() -> RateLimitError:
    return RateLimitError(
        "The model is still being loaded, and as many of your requests wait for it as leave room for others.",
        code="queue_full",
        retry_after_s=_LOADING_RETRY_AFTER_S,
    )


def _still_loading() -> InternalServerTooBusyError:
    return InternalServerTooBusyError(
        "The model is still being loaded; try again later.", retry_after_s=_LOADING_RETRY_AFTER_S
    )
