"""The gateways of a model server: who has joined, whose each open request is, and what each has not been told yet."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

import zmq

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Delta, Failed, Reply
from vfastml.engine.request_handles import HandleIndex
from vfastml.errors import InternalServerError, RequestCancelledError, VFastMLError
from vfastml.models_servers.unsent_replies import Immediate, Unsent, WorkReply, frame_of, sendable

logger = logging.getLogger(__name__)


_MAX_UNSENT = 10_000
"""Answers that wait for room. A gateway that asks on and does not read them is as good as lost."""


class Gateways:
    """Belongs to the I/O thread, but for `num_open` and `all_told`.

    `send(identity, frame)` never waits: it raises zmq.Again for a gateway whose queue is full, and another zmq.ZMQError
    for one that is gone. `on_end` is told of each open request that ends for whatever reason, and `on_drop` of those
    that the model's thread does not know to have ended.
    """

    def __init__(
        self, send: Callable[[bytes, bytes], None], on_end: Callable[[str], None], on_drop: Callable[[str], None]
    ) -> None:
        self._send = send
        self._on_end = on_end
        self._on_drop = on_drop
        self._joined: set[bytes] = set()
        self._routes: dict[str, bytes] = {}
        """Which gateway has each open request."""
        self._handles = HandleIndex()
        self._unsent: defaultdict[bytes, Unsent] = defaultdict(Unsent)
        self._to_end: set[bytes] = set()
        """Gateways whose queue was full when they were to begin anew."""

    @property
    def num_open(self) -> int:
        """Requests without a terminal reply."""
        return len(self._routes)

    @property
    def all_told(self) -> bool:
        """Nothing is left to be sent."""
        return not self._unsent and not self._to_end

    def has_open(self, request_id: str) -> bool:
        """Whether a gateway, whichever, has a request of that id open."""
        return request_id in self._routes

    # -- who is there

    def join(self, identity: bytes) -> None:
        """From now on that gateway hears what all are told."""
        self._joined.add(identity)
        self._to_end.discard(identity)

    def tell(self, identity: bytes, reply: Reply) -> None:
        """Now or, to a gateway that does not keep up, never."""
        self._try_send(identity, wire.encode_reply(reply))

    def tell_all(self, reply: Reply) -> None:
        """`tell`, to each that has joined."""
        for identity in list(self._joined):
            self.tell(identity, reply)

    def end_session(self, identity: bytes) -> None:
        """A message of this gateway was lost. It is to begin anew; without effect on others."""
        if identity in self._joined:
            self.expel(identity)

    def expel(self, identity: bytes) -> None:
        """This gateway hears that its session has ended, and then nothing any more."""
        self._joined.discard(identity)
        self.drop_requests(identity)
        self._to_end.add(identity)
        self._send_ends()

    def known(self) -> set[bytes]:
        """Those that have joined or have something open."""
        return {*self._joined, *self._routes.values()}

    # -- requests

    def open(self, request_id: str, identity: bytes, handles: Iterable[str] = ()) -> None:
        """What is said of that request is for this gateway, until its terminal reply."""
        self._routes[request_id] = identity
        self._handles.add(request_id, handles)

    def cancel(self, identity: bytes, request_id: str) -> None:
        """Ends a request of this gateway, which hears no more of it; without effect if it has none of that id."""
        if self._routes.get(request_id) == identity:
            self._end(request_id)
            if identity in self._unsent:
                self._unsent[identity].forget(request_id)
            self._on_drop(request_id)

    def cancel_by_handle(self, handle: str) -> int:
        """Ends all requests with that handle, and tells their gateways so. Returns how many there were."""
        found = self._handles.find(handle)
        for request_id in found:
            self.route(Failed.of(request_id, RequestCancelledError()))
            self._on_drop(request_id)
        return len(found)

    def drop_requests(self, identity: bytes) -> None:
        """Ends all that this gateway has open."""
        self._unsent.pop(identity, None)
        for request_id in [request_id for request_id, owner in self._routes.items() if owner == identity]:
            self.cancel(identity, request_id)

    def fail_open(self, error: VFastMLError) -> None:
        """Ends every open request with that error."""
        for request_id in list(self._routes):
            self.route(Failed.of(request_id, error))

    # -- replies

    def add(self, identity: bytes, reply: Immediate | Failed) -> None:
        """For that gateway, behind what it has not been told yet."""
        unsent = self._unsent[identity]
        unsent.add(sendable(reply))
        if len(unsent.messages) + len(unsent.ended) > _MAX_UNSENT:
            logger.error("a gateway has not taken anything for too long: its session is ended")
            self.expel(identity)

    def route(self, reply: WorkReply) -> None:
        """For the gateway that has the request open, if one still has."""
        identity = self._routes.get(reply.request_id)
        if identity is None:
            return  # cancelled, or its gateway is gone
        if isinstance(reply, Delta):
            self._unsent[identity].add(reply)  # whether it can be sent is seen when all of the step are encoded
            return
        told = sendable(reply)
        if told is not reply:
            self._on_drop(reply.request_id)
        self._unsent[identity].add(told)
        self._end(reply.request_id)

    def flush(self) -> bool:
        """Sends each gateway what it has not got. True if something is left because a queue is full."""
        self._send_ends()
        for identity, unsent in list(self._unsent.items()):
            while (message := unsent.next_message()) is not None:
                frame = frame_of(message)
                if frame is None:
                    self._fail_unsendable(unsent)
                elif self._try_send(identity, frame):
                    unsent.sent(message)
                else:
                    break
            if message is None:
                del self._unsent[identity]
        return not self.all_told

    def _send_ends(self) -> None:
        for identity in list(self._to_end):
            if self._try_send(identity, wire.DAMAGED):
                self._to_end.discard(identity)

    def _fail_unsendable(self, unsent: Unsent) -> None:
        """What cannot travel must not hold up the others: its request fails instead."""
        for request_id in unsent.unsendable():
            unsent.forget(request_id)
            unsent.add(Failed.of(request_id, InternalServerError("The answer could not be sent.")))
            if self.has_open(request_id):
                self._end(request_id)
            self._on_drop(request_id)

    def _end(self, request_id: str) -> None:
        """Every open request ends through here."""
        del self._routes[request_id]
        self._handles.remove(request_id)
        self._on_end(request_id)

    def _try_send(self, identity: bytes, frame: bytes) -> bool:
        """False if the gateway's queue is full or the gateway is gone; then its requests are dropped."""
        try:
            self._send(identity, frame)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            logger.debug("a gateway is gone: %s", error)
            self._joined.discard(identity)
            self._to_end.discard(identity)
            self.drop_requests(identity)
            return False
        return True
