"""The gateway's side of the wire: requests go to the best server, their answers come back to the task that waits."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import zmq

from vfastml.engine.cancellations import Cancellations
from vfastml.engine.dispatch_replies import Accepted, CancelResult, Goaway, Hello, Reply, ServedModel, Status, StepReply
from vfastml.engine.dispatch_requests import Join, WorkReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.handshakes import HandshakeFailure, refusal_of
from vfastml.engine.open_requests import OpenRequests
from vfastml.engine.request_handles import handle_of, with_handles
from vfastml.engine.request_observer import RequestObserver
from vfastml.engine.server_connection import ServerConnection
from vfastml.engine.server_table import MAX_STEP_S, ServerState, ServerTable, ServerView, Startup
from vfastml.engine.tenant import TENANT, Tenant, kept_apart
from vfastml.engine.wire import PROTOCOL, DamagedError, decode_reply, encode_request
from vfastml.engine.wire_keys import GatewayKeys
from vfastml.errors import InternalServerError, InternalServerTooBusyError, VFastMLError
from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often Join is repeated, hung servers are looked for, and held requests are looked at again."""

_SHUTDOWN_RETRY_AFTER_S = 1.0
_MAX_IO_THREADS = 8

_ASKED_TO_CANCEL = (ServerState.LIVE, ServerState.DRAINING)
"""Others have nothing open: what a hung server had was moved or failed."""


class DispatchEngine:
    """Sends requests to the model servers at `endpoints` and routes what comes back. All methods are for the thread of
    the event loop that `start` ran on.

    A request that no server can take yet is held for up to `hold_s` seconds, `max_held` of them at a time. A server
    whose model has not moved for `max_step_age_s` seconds is given up until it moves again. `wire_keys` is the
    folder of a gateway (see wire_keys.py), for all that is not on ipc. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        hold_s: float = 30.0,
        max_held: int = 256,
        max_step_age_s: float = MAX_STEP_S,
        wire_keys: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._observers: tuple[RequestObserver, ...] = ()
        self._keys = None if wire_keys is None else GatewayKeys(wire_keys)
        self._clock = clock
        self._gateway_id = f"gateway-{secrets.token_hex(4)}"
        self._table = ServerTable(self._endpoints, protocol=PROTOCOL, now=clock(), max_step_age_s=max_step_age_s)
        self._requests = OpenRequests(self._table, self._send, self._send_surely, hold_s=hold_s, max_held=max_held)
        self._cancellations = Cancellations(self._send)
        self._connections: dict[str, ServerConnection] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._thread: int | None = None
        """The event loop's, which alone may touch all this."""
        self._was_ready = asyncio.Event()
        self._undecodable = RareWarning(_log)
        self._refused = {endpoint: RareWarning(_log) for endpoint in self._endpoints}

    def observe(self, *observers: RequestObserver) -> None:
        """Tell these too, in their order and after the others, of each request that is dispatched from now on."""
        self._observers += observers

    async def start(self) -> None:
        """Start connecting to every server. Returns at once: `startup` tells how far they are. Raises WireKeyError and
        IpcFolderError."""
        if self._context is not None:
            raise RuntimeError("the dispatch engine is already running")
        if self._keys is not None:
            self._keys.check(self._endpoints)
        self._thread = threading.get_ident()
        # A name that is slow to resolve holds up its I/O thread, and with it the heartbeats of other connections.
        self._context = zmq.Context(io_threads=max(1, min(len(self._endpoints), _MAX_IO_THREADS)))
        for endpoint in self._endpoints:
            self._connections[endpoint] = ServerConnection(self._context, endpoint, self._gateway_id, self, self._keys)
            self._connections[endpoint].open()
        self._tick()

    async def close(self) -> None:
        """Fail everything that is open, as retryable, and close the connections."""
        context, self._context = self._context, None
        if context is None:
            return
        if self._ticker is not None:
            self._ticker.cancel()
        self._requests.fail_all(
            InternalServerTooBusyError("The server is shutting down.", retry_after_s=_SHUTDOWN_RETRY_AFTER_S)
        )
        for endpoint, connection in self._connections.items():
            connection.close()
            self._table.on_lost(endpoint)
            self._cancellations.on_lost(endpoint)
        # Waits for the I/O threads, one of which may be resolving a name.
        await asyncio.to_thread(context.term)

    def dispatch(self, request: WorkReq) -> DispatchTask:
        """Send the request, or hold it until a server is up. What prevents that becomes the error of the task, and so
        does the deadline of the caller (see deadline.py). Raises RuntimeError when the engine is not running, and in
        another thread than the event loop's."""
        if self._context is None:
            raise RuntimeError("the dispatch engine is not running")
        if threading.get_ident() != self._thread:
            raise RuntimeError("dispatch() belongs to the event loop's thread: make its route `async def`")
        own = kept_apart(with_handles(request))
        task = DispatchTask(own, self._requests.cancel, self._observers, TENANT.get())
        try:
            for observer in self._observers:
                observer.on_dispatched(task)
        except VFastMLError as error:
            task.fail(error)
        except Exception:
            _log.exception("A request could not be dispatched: what watches requests has failed.")
            task.fail(InternalServerError())
        else:
            self._requests.add(task)
        return task

    async def cancel_by_name(self, name: str) -> bool:
        """Cancel all text requests that the caller (see tenant.py) knows by that name (see request_handles.py), those
        of other gateways of the same model servers too; each fails with RequestCancelledError. False: none is open.
        Raises InternalServerTooBusyError if that cannot be said."""
        handle = handle_of(name)
        asked = [endpoint for endpoint in self._endpoints if self._table.state(endpoint) in _ASKED_TO_CANCEL]
        if self._requests.cancel_by_handle(handle):
            self._cancellations.tell(handle, asked)
            return True
        return await self._cancellations.ask(handle, asked)

    def end_requests_of(self, tenant: Tenant, error: VFastMLError) -> None:
        """End all that is open on that tenant's behalf, here and in the model servers; each fails with that error."""
        self._requests.end_those_of(tenant, error)

    @property
    def open_requests(self) -> int:
        """Requests without a terminal, held ones included."""
        return len(self._requests)

    @property
    def held_requests(self) -> int:
        """Requests that wait for a server to come up."""
        return self._requests.held

    def models(self) -> list[ServedModel]:
        """Every model of every server that has ever said Hello, each id once; one whose servers are lost is a 503."""
        return self._table.models()

    def servers(self) -> list[ServerView]:
        """Every configured server as it stands now."""
        return self._table.views(self._clock())

    def is_ready(self) -> bool:
        """Whether at least one server is live, and each known model has a live one."""
        return self._table.is_ready()

    async def wait_ready(self) -> None:
        """Waits until `is_ready` holds for the first time."""
        await self._was_ready.wait()

    def startup(self) -> Startup:
        """Done once any server has said Hello; until then, what is being waited for."""
        return self._table.startup(self._clock())

    # What the connections tell (see ConnectionListener).

    def on_connected(self, endpoint: str) -> None:
        """Opens the session: a ROUTER cannot speak first."""
        self._table.on_joined(endpoint, self._clock())
        self._join(endpoint)

    def on_disconnected(self, endpoint: str) -> None:
        """Moves or fails what was open there."""
        draining = self._table.state(endpoint) is ServerState.DRAINING
        _log.log(logging.INFO if draining else logging.WARNING, "The model server at %s is gone.", endpoint)
        self._table.on_lost(endpoint)
        self._cancellations.on_lost(endpoint)
        self._requests.move_from(endpoint)
        self._requests.flush_held()

    def on_refused(self, endpoint: str, failure: HandshakeFailure) -> None:
        """Notes why, for whoever waits for the server."""
        refusal = refusal_of(failure, has_keys=self._keys is not None)
        if refusal is not None:
            self._table.on_refused(endpoint, refusal.shown)
            self._refused[endpoint].warn("The model server at %s %s.", endpoint, refusal.logged)

    def on_frame(self, endpoint: str, frame: bytes) -> None:
        """Handles a reply of any kind. What cannot be decoded is logged and dropped. A damaged one ends the session:
        nobody knows whose text would have a hole."""
        try:
            reply = decode_reply(frame)
        except DamagedError as error:
            self._undecodable.warn("The connection to %s is begun anew: %s", endpoint, error)
            self._connections[endpoint].end_session()
            return
        except msgspec.DecodeError as error:
            self._undecodable.warn("The model server at %s sent a message that cannot be decoded: %s", endpoint, error)
            return
        self._on_reply(endpoint, reply)

    def _on_reply(self, endpoint: str, reply: Reply) -> None:
        match reply:
            case StepReply():
                self._requests.on_deltas(endpoint, reply.deltas)
                for ended in reply.ended:
                    self._requests.on_terminal(endpoint, ended)
            case Accepted():
                self._requests.on_accepted(endpoint, reply)
            case Status():
                self._table.on_status(endpoint, reply, self._clock())
            case Hello():
                self._on_hello(endpoint, reply)
            case Goaway():
                self._on_goaway(endpoint)
            case CancelResult():
                self._cancellations.on_result(endpoint, reply)
            case _:
                self._requests.on_terminal(endpoint, reply)

    def _on_hello(self, endpoint: str, hello: Hello) -> None:
        if self._table.is_other_process(endpoint, hello):
            self._table.on_joined(endpoint, self._clock())
            self._cancellations.on_lost(endpoint)
            self._requests.move_from(endpoint)
        before = self._table.state(endpoint)
        self._table.on_hello(endpoint, hello, self._clock())
        if self._table.state(endpoint) is not before:
            self._log_hello(endpoint, hello)
        if self.is_ready():
            self._was_ready.set()
        self._requests.flush_held()

    def _log_hello(self, endpoint: str, hello: Hello) -> None:
        if hello.protocol == PROTOCOL:
            _log.info("The model server at %s is ready: %s.", endpoint, ", ".join(model.id for model in hello.models))
        else:
            _log.error(
                "The model server at %s speaks protocol %d and this gateway %d: it is not used.",
                endpoint,
                hello.protocol,
                PROTOCOL,
            )

    def _on_goaway(self, endpoint: str) -> None:
        _log.info("The model server at %s is draining.", endpoint)
        self._table.on_goaway(endpoint)
        self._requests.flush_held()

    def _send(self, endpoint: str, frame: bytes) -> bool:
        return self._connections[endpoint].send(frame)

    def _send_surely(self, endpoint: str, frame: bytes) -> None:
        self._connections[endpoint].send_surely(frame)

    def _join(self, endpoint: str) -> None:
        self._send(endpoint, encode_request(Join(PROTOCOL, self._gateway_id)))

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        for endpoint in self._endpoints:
            if self._table.state(endpoint) is ServerState.LOADING:
                self._join(endpoint)
        for endpoint in self._table.mark_hung(self._clock()):
            _log.error("The model server at %s hangs: its requests are moved or failed.", endpoint)
            self._requests.move_from(endpoint, cancel_there=True)
        self._requests.flush_held()
