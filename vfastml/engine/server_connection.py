"""One gateway's connection to one model server: a DEALER, its monitor, and a new pair of them after each loss."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from vfastml.engine.handshakes import FAILURES, HandshakeFailure, failure_of
from vfastml.engine.ipc_folder import IpcFolderError, enter_ipc_folder, ipc_folder_of
from vfastml.engine.wire import open_dealer
from vfastml.engine.wire_keys import DealerKeys, GatewayKeys, WireKeyError

_log = logging.getLogger(__name__)

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | FAILURES
# libzmq shows each end of an established session (closed, killed, missed heartbeats) as DISCONNECTED, and that of a
# handshake too, behind its failure, or without one where what came is no handshake at all. Attempts that fail before
# the handshake show as other events, and it goes on trying by itself. After some failures of handshakes it does not.

_FRAMES_PER_TURN = 256
"""Frames read before other work of the event loop gets its turn."""

_MAX_UNSENT = 10_000
"""Frames of `send_surely` that wait for room. A peer that does not keep up with so many is as good as lost."""

_REOPEN_AFTER_S = 0.1
"""A peer that hangs up right after each handshake must not keep the gateway busy."""

_HANDSHAKE_S = 1.0
"""For each try to connect. libzmq itself waits 30 s for a peer that says nothing, and for ever for one whose first
bytes look like ZMTP 1.0, which has neither handshake nor heartbeats."""

_HANDSHAKE_WITH_KEYS_S = 5.0
"""Messages go to and fro four times, and the model server's I/O thread has a say in it."""

_RETRY_REFUSED_S = 1.0
"""Until a peer that has refused the handshake is asked again."""

_RETRY_OPEN_AFTER_S = 1.0
"""When not even a socket could be made, because the process has run out of descriptors, say."""


class ConnectionListener(Protocol):
    """Who is told. Called on the event loop; may send, and close the connection."""

    def on_connected(self, endpoint: str) -> None:
        """A handshake is complete; nothing that was sent before is known to the peer."""

    def on_frame(self, endpoint: str, frame: bytes) -> None:
        """One frame has arrived."""

    def on_disconnected(self, endpoint: str) -> None:
        """The connection is gone: closed, killed, frozen or unreachable. All that had arrived has been delivered."""

    def on_refused(self, endpoint: str, failure: HandshakeFailure) -> None:
        """The handshake has failed; it is tried again within a second."""


class ServerConnection:
    """Connects at `open` and again after each loss, until `close`. Each session is a socket with an identity of its
    own: nothing of an old session can be taken for an answer in the new one, and a ROUTER that still holds the old peer
    hears the new one."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        gateway_id: str,
        listener: ConnectionListener,
        keys: GatewayKeys | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._context = context
        self._gateway_id = gateway_id
        self._listener = listener
        self._keys = keys
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._connected = False
        self._unsent: deque[bytes] = deque()
        """In order, for when the peer keeps up again."""
        self._reopening: asyncio.TimerHandle | None = None
        self._giving_up: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Start connecting; call on the running event loop. Raises zmq.ZMQError for a malformed endpoint, WireKeyError
        for keys that cannot be used, and IpcFolderError for a socket file that others can get at."""
        folder = ipc_folder_of(self.endpoint)
        if folder is not None:
            enter_ipc_folder(folder)
        keys = self._keys_for_session()
        identity = f"{self._gateway_id}-{secrets.token_hex(4)}"
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(_EVENTS, addr=f"inproc://monitor-{identity}")
        open_dealer(self._socket, self.endpoint, identity, keys)
        loop = asyncio.get_running_loop()
        for socket, read in ((self._socket, self._read_frames), (self._monitor, self._read_events)):
            loop.add_reader(socket.FD, read)
            # A descriptor signals only after a read has found nothing; the monitor's would never begin to.
            loop.call_soon(read)
        self._giving_up = loop.call_later(_HANDSHAKE_S if keys is None else _HANDSHAKE_WITH_KEYS_S, self._give_up)

    def _keys_for_session(self) -> DealerKeys | None:
        return None if self._keys is None else self._keys.keys_for(self.endpoint)

    def send(self, frame: bytes) -> bool:
        """Whether the frame is on its way; False: not connected, or the peer does not keep up. Never waits."""
        if self._socket is None or not self._connected:
            return False
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # A send may take the signal of an arrived frame off the descriptor that the loop watches.
            self._read_later_if_any()
        return True

    def send_surely(self, frame: bytes) -> None:
        """Sends the frame now, or as soon as the peer keeps up again. It is lost only with the session; so a session in
        which too many wait is ended."""
        if not self._connected:
            return
        if self._unsent or not self.send(frame):
            self._unsent.append(frame)
        if len(self._unsent) > _MAX_UNSENT:
            _log.error("%s has not taken anything for too long: the connection is given up.", self.endpoint)
            self._unsent.clear()
            asyncio.get_running_loop().call_soon(self._on_disconnected)

    def _send_unsent(self) -> None:
        while self._unsent and self.send(self._unsent[0]):
            self._unsent.popleft()

    def close(self) -> None:
        """End the session, if any, and stop reconnecting. What was not yet sent is dropped."""
        if self._reopening is not None:
            self._reopening.cancel()
        self._close_session()

    def _read_frames(self) -> None:
        for _ in range(_FRAMES_PER_TURN):
            frame = _received(self._socket)
            if frame is None:
                # Last, as the descriptor signals room too, and reading takes the signal off.
                self._send_unsent()
                return
            self._tell(self._listener.on_frame, self.endpoint, frame)
        asyncio.get_running_loop().call_soon(self._read_frames)

    def _read_later_if_any(self) -> None:
        if self._socket is not None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            asyncio.get_running_loop().call_soon(self._read_frames)

    def _read_events(self) -> None:
        while (found := self._next_event()) is not None:
            event, value = found
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._stop_giving_up()
                self._tell(self._listener.on_connected, self.endpoint)
            elif event == zmq.EVENT_DISCONNECTED and self._connected:
                self._on_disconnected()
            elif event == zmq.EVENT_DISCONNECTED:
                self._on_refused(HandshakeFailure.NO_PEER)
            else:
                self._on_refused(failure_of(event, value))

    def _next_event(self) -> tuple[int, int] | None:
        """It and its value."""
        if self._monitor is None:
            return None
        try:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return None
        return int(event["event"]), int(event["value"])

    def _on_refused(self, failure: HandshakeFailure) -> None:
        """Before the socket's DISCONNECTED, which would tell of the loss of a session that there never was. What cannot
        be deciphered in the midst of a session shows so, too."""
        if self._connected:
            return
        self._close_session()
        may_be_the_network = self._keys is None and failure is HandshakeFailure.HUNG_UP
        after_s = _REOPEN_AFTER_S if may_be_the_network else _RETRY_REFUSED_S
        self._reopening = asyncio.get_running_loop().call_later(after_s, self._reopen)
        self._tell(self._listener.on_refused, self.endpoint, failure)

    def _on_disconnected(self) -> None:
        if self._socket is None:
            return
        while (frame := _received(self._socket)) is not None:
            self._tell(self._listener.on_frame, self.endpoint, frame)
        self.end_session()

    def end_session(self) -> None:
        """What is still under way is lost, the listener is told, and a new session is begun; without effect if there is
        none."""
        if self._socket is None:
            return
        self._close_session()
        self._reopening = asyncio.get_running_loop().call_later(_REOPEN_AFTER_S, self._reopen)
        self._tell(self._listener.on_disconnected, self.endpoint)

    def _give_up(self) -> None:
        self._close_session()
        self._reopen()

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()

    def _reopen(self) -> None:
        try:
            self.open()
        except (zmq.ZMQError, WireKeyError, IpcFolderError, OSError) as error:
            _log.error("Cannot reconnect to %s, trying again: %s", self.endpoint, error)
            self._close_session()
            self._reopening = asyncio.get_running_loop().call_later(_RETRY_OPEN_AFTER_S, self._reopen)

    def _close_session(self) -> None:
        self._connected = False
        self._unsent.clear()
        self._stop_giving_up()
        if self._socket is not None:
            self._socket.disable_monitor()
        for socket in (self._monitor, self._socket):
            if socket is not None:
                asyncio.get_running_loop().remove_reader(socket.FD)
                socket.close(linger=0)
        self._socket = self._monitor = None

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        """No surprise in a listener may stop the reading: the descriptors signal only what is new."""
        try:
            callback(*args)
        except Exception:
            _log.exception("A message of a model server could not be handled.")


def _received(socket: zmq.Socket[bytes] | None) -> bytes | None:
    """The next frame that has already arrived, if any. Extra parts of a message belong to no protocol of ours."""
    if socket is None:
        return None
    try:
        return socket.recv_multipart(zmq.NOBLOCK)[0]
    except zmq.Again:
        return None
