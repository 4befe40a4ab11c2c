"""A model server's half of the wire: one I/O thread owns the socket, so that the model's thread never waits for it.

The two threads meet in two queues. `inbox` brings the model's thread what to do; `send` takes what a step has to say,
and the I/O thread makes one StepReply of it for each gateway.
"""

from __future__ import annotations

import logging
import math
import queue
import socket
import threading
import time
from collections.abc import Container, Iterable

import msgspec
import zmq

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import (
    Accepted,
    CancelResult,
    Detokenized,
    Failed,
    Goaway,
    Hello,
    Load,
    Status,
    Tokenized,
)
from vfastml.engine.dispatch_requests import (
    CancelByHandleReq,
    CancelReq,
    DetokenizeReq,
    Join,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.engine.request_failure import failure
from vfastml.engine.tenant import share_of
from vfastml.engine.wire_keys import ServerKeys
from vfastml.errors import InternalServerError, InternalServerTooBusyError
from vfastml.models_servers.admission import Admission
from vfastml.models_servers.gateways import Gateways
from vfastml.models_servers.handshake_watch import HandshakeWatch
from vfastml.models_servers.inbox import Cancelled, InboxItem, Prepare, SizedWork
from vfastml.models_servers.ipc_place import IpcPlace, private_files
from vfastml.models_servers.unsent_replies import Answer, WorkReply, sendable
from vfastml.models_servers.wire_guard import WireGuard
from vfastml.utils.log_fields import LOG_FIELDS
from vfastml.utils.rare_warning import RareWarning

logger = logging.getLogger(__name__)

# Plain numbers: each use of zmq's own flags would make an enum member anew, at every step.
_FIRST_PART = int(zmq.NOBLOCK | zmq.SNDMORE)
_LAST_PART = int(zmq.NOBLOCK)

_BEAT_S = 0.2
_MIN_BEAT_S = 0.02
"""Between two beats when the load changes quickly."""
_RETRY_S = 0.01
"""Until the next try to send to a gateway whose queue is full."""
_RECEIVE_S = 0.005
"""For preparing requests before replies get their turn again."""
_KEYS_S = 1.0
"""How often it is looked whether a gateway's key was revoked."""
_MANY_WAKES = 4096
"""Read at once; what is left makes the next round start at once, and no more."""
_LAST_WORDS_S = 1.0
"""For gateways whose queue is full, when the link closes."""


class ServerLink:
    """Listens on a ROUTER from `open` to `close`; every method may be called from the model's thread.

    With an `ipc_path` it listens there, and not on host and port. `wire_keys` is the folder of a model server (see
    wire_keys.py): only gateways whose keys are there are heard.
    """

    def __init__(
        self,
        host: str,
        port: int,
        prepare: Prepare,
        admission: Admission,
        *,
        ipc_path: str | None = None,
        wire_keys: str | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ipc = None if ipc_path is None else IpcPlace(ipc_path)
        self._wire_keys = wire_keys
        self._prepare = prepare
        self.admission = admission
        """From `open` on it belongs to the I/O thread."""
        self.inbox: queue.SimpleQueue[InboxItem] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[list[WorkReply]] = queue.SimpleQueue()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._thread = threading.Thread(target=self._run, name="server-link", daemon=True)
        self._closing = threading.Event()
        self._hello: Hello | None = None
        self._goaway: Goaway | None = None
        self._phase = "starting"
        self._progress: float | None = None
        self._started_s = time.monotonic()
        self._load = Load()
        self._step_started_s: float | None = None
        # The rest belongs to the I/O thread alone.
        self._gateways = Gateways(
            self._send,
            on_end=lambda request_id: self.admission.leave(request_id),
            on_drop=lambda request_id: self.inbox.put(Cancelled(request_id)),
        )
        self._announced: Hello | Goaway | None = None
        self._undecodable = RareWarning(logger)
        self._incompatible = RareWarning(logger)
        self._last_shown: tuple[str, int, int, int, int] | None = None
        self._next_beat_s = 0.0
        self._next_look_at_keys_s = 0.0
        self._guard: WireGuard | None = None

    def open(self) -> int:
        """Binds, starts the thread, and returns the port, 0 for a socket file. Raises WireKeyError, IpcPlaceError, and
        zmq.ZMQError if the port is taken."""
        keys = None if self._wire_keys is None else ServerKeys(self._wire_keys)
        if self._ipc is not None:
            self._ipc.take()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._context = zmq.Context()
        self._guard = None if keys is None else WireGuard(self._context, keys)
        self._router = self._bound_router(self._context, keys)
        self._watch = HandshakeWatch(self._router, has_keys=keys is not None)
        port = wire.bound_port(self._router) if self._ipc is None else 0
        self._thread.start()
        return port

    def _bound_router(self, context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys | None) -> zmq.Socket[bytes]:
        if self._ipc is None:
            return wire.bind_router(context, self._host, self._port, keys.pair if keys else None)
        with private_files():
            return wire.bind_ipc_router(context, self._ipc.path)

    def report(self, phase: str, progress: float | None = None) -> None:
        """What loading is busy with, for the next beat."""
        self._phase, self._progress = phase, progress

    def ready(self, hello: Hello) -> None:
        """Loaded: every gateway that has joined, and each that will, is told. Raises what encoding the Hello raises."""
        wire.encode_reply(hello)
        self.admission.size_for(hello.limits.max_num_seqs)
        self._phase, self._progress = "ready", None
        self._hello = hello
        self._wake()

    def drain(self, reason: str) -> None:
        """New requests are refused from now on, open ones go on."""
        self._phase = "draining"
        self._goaway = Goaway(reason)
        self._wake()

    def send(self, replies: Iterable[WorkReply], load: Load) -> None:
        """One step's replies, and how busy the server is after it."""
        self._load = load
        batch = list(replies)
        if batch:
            self._outbox.put(batch)
        self._wake()

    def step_begins(self) -> None:
        """The model's thread is busy from now on: beats say for how long."""
        self._step_started_s = time.monotonic()

    def step_ended(self) -> None:
        """The model's thread is back."""
        self._step_started_s = None

    @property
    def is_ready(self) -> bool:
        """Hello has been given."""
        return self._hello is not None

    @property
    def num_open(self) -> int:
        """Requests without a terminal reply."""
        return self._gateways.num_open

    @property
    def is_idle(self) -> bool:
        """No request is open, and the gateways have been told all."""
        return self.num_open == 0 and self._gateways.all_told

    def close(self) -> None:
        """Fails what is open, sends what is left, for at most about two seconds, and closes the socket."""
        self._closing.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        if self._context is not None:
            self._context.destroy(linger=500)
            self._wake_reader.close()
            self._wake_writer.close()
        if self._ipc is not None:
            self._ipc.leave()

    def _wake(self) -> None:
        if self._context is None:
            return  # nobody sleeps before `open`
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            return  # full: it has not slept since the last thousand wakes; or closed

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_reader, zmq.POLLIN)
        poller.register(self._watch.socket, zmq.POLLIN)
        if self._guard is not None:
            poller.register(self._guard.socket, zmq.POLLIN)
        while not self._closing.is_set():
            ready = [source for source, _ in poller.poll(self._sleep_ms())]
            try:
                self._turn(ready)
            except Exception:
                logger.exception("the link goes on after an error")
        self._last_turn()

    def _turn(self, ready: Container[object]) -> None:
        """One round. `ready` is what the poll has found: most rounds are a step's, and nothing has come in."""
        if self._wake_reader.fileno() in ready:
            self._wake_reader.recv(_MANY_WAKES)
        self._keep_the_door(ready)
        self._announce()
        if self._router in ready:
            self._receive_some()
        self._route_outbox()
        self._gateways.flush()
        self._beat()

    def _keep_the_door(self, ready: Container[object]) -> None:
        if self._watch.socket in ready:
            self._watch.read()
        if self._guard is None:
            return
        if self._guard.socket in ready:
            self._guard.answer()
        now = time.monotonic()
        if now >= self._next_look_at_keys_s:
            self._next_look_at_keys_s = now + _KEYS_S
            for identity in self._guard.revoked(self._gateways.known()):
                logger.warning("the key of a gateway was revoked: its session is ended")
                self._gateways.expel(identity)

    def _last_turn(self) -> None:
        self._route_outbox()
        if self.num_open:
            logger.warning("closing with %d requests open: they are failed", self.num_open)
        self._gateways.fail_open(InternalServerTooBusyError("The model server is shutting down."))
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._gateways.flush() and time.monotonic() < deadline:
            time.sleep(_RETRY_S)
        self._watch.close()

    def _sleep_ms(self) -> int:
        until = self._next_beat_s - time.monotonic()
        if not self._gateways.all_told:
            until = min(until, _RETRY_S)
        return max(0, math.ceil(until * 1000))

    # -- in

    def _receive_some(self) -> None:
        until = time.monotonic() + _RECEIVE_S
        while time.monotonic() < until:
            try:
                message = self._next_message()
            except zmq.Again:
                return
            if message:
                self._receive(message[0], message[1:])

    def _next_message(self) -> list[bytes]:
        """Nothing, if it comes from somebody who may not speak any more."""
        if self._guard is not None:
            return self._guard.receive(self._router)
        return self._router.recv_multipart(zmq.NOBLOCK)

    def _receive(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            request = wire.decode_request(b"".join(frames))
        except msgspec.DecodeError as error:
            self._undecodable.warn("a message that is none of ours was dropped: %s", str(error)[:200])
            if isinstance(error, wire.DamagedError):
                self._gateways.end_session(identity)
            return
        if isinstance(request, Join):
            self._join(identity, request)
        elif isinstance(request, CancelReq):
            self._gateways.cancel(identity, request.request_id)
        elif isinstance(request, CancelByHandleReq):
            found = self._gateways.cancel_by_handle(request.handle)
            self._gateways.add(identity, CancelResult(request.request_id, found))
        else:
            self._take(identity, request)

    def _join(self, identity: bytes, join: Join) -> None:
        if join.protocol != wire.PROTOCOL:
            self._incompatible.warn("a gateway speaks protocol %d, this server %d", join.protocol, wire.PROTOCOL)
        self._gateways.drop_requests(identity)
        self._announce()  # to those before it: this one hears all of it below, once
        self._gateways.join(identity)
        self._gateways.tell(identity, self._status())
        # What is said from now on, on the model's thread, it hears with all others.
        if self._announced is not None and self._hello is not None:
            self._gateways.tell(identity, self._hello)
        if isinstance(self._announced, Goaway):
            self._gateways.tell(identity, self._announced)

    def _take(self, identity: bytes, request: WorkReq) -> None:
        before = LOG_FIELDS.set({"request_id": request.request_id})
        try:
            reply = self._first_reply(identity, request)
        except Exception as error:
            reply = failure(request.request_id, error, "The request could not be prepared.")
        finally:
            LOG_FIELDS.reset(before)
        self._gateways.add(identity, reply)

    def _first_reply(self, identity: bytes, request: WorkReq) -> Accepted | Answer | Failed:
        if self._goaway is not None or self._hello is None:
            raise InternalServerTooBusyError("The model server takes no requests now.", retry_after_s=1.0)
        if self._gateways.has_open(request.request_id):
            raise InternalServerError("A request with this id is already open.")
        if not isinstance(request, TokenizeReq | DetokenizeReq):
            self.admission.check_room(share=share_of(request))  # before the work of preparing it
        prepared = self._prepare(request)
        if isinstance(prepared, Tokenized | Detokenized):
            return prepared
        accepted = sendable(prepared.accepted())
        if isinstance(accepted, Accepted):
            tokens = prepared.num_tokens if isinstance(prepared, SizedWork) else 0
            self.admission.enter(request.request_id, accepted.num_choices, tokens, share_of(request))
            handles = request.handles if isinstance(request, TextGenerationReq) else ()
            self._gateways.open(request.request_id, identity, handles)
            self.inbox.put(prepared)
        return accepted

    # -- out

    def _announce(self) -> None:
        """Hello when loading has ended, Goaway when draining begins: once to everyone."""
        latest = self._goaway or self._hello
        if latest is not self._announced and latest is not None:
            self._announced = latest
            self._gateways.tell_all(latest)

    def _beat(self) -> None:
        now = time.monotonic()
        shown = self._shown_in_beats()
        changed = self._last_shown is not None and self._last_shown != shown
        if now >= self._next_beat_s or (changed and now >= self._next_beat_s - _BEAT_S + _MIN_BEAT_S):
            self._last_shown = shown
            self._next_beat_s = now + _BEAT_S
            self._gateways.tell_all(self._status())
        elif changed:
            self._next_beat_s = min(self._next_beat_s, now + _MIN_BEAT_S)

    def _shown_in_beats(self) -> tuple[str, int, int, int, int]:
        """What a beat does not wait for when it changes."""
        load = self._load
        return self._phase, load.running, load.waiting, load.free_blocks, self.num_open

    def _status(self) -> Status:
        now, began = time.monotonic(), self._step_started_s
        return Status(
            phase=self._phase,
            progress=self._progress,
            elapsed_s=now - self._started_s,
            step_age_s=0.0 if began is None else now - began,
            load=msgspec.structs.replace(self._load, open_requests=self.num_open),
        )

    def _route_outbox(self) -> None:
        while not self._outbox.empty():
            for reply in self._outbox.get():
                self._gateways.route(reply)

    def _send(self, identity: bytes, frame: bytes) -> None:
        """Never waits. Raises zmq.Again if the gateway's queue is full, another zmq.ZMQError if the gateway is gone."""
        self._router.send(identity, _FIRST_PART)
        self._router.send(frame, _LAST_PART)
