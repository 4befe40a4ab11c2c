"""The wire: msgpack messages over ZeroMQ. The one place that makes sockets and sets their options.

A model server binds one ROUTER; each gateway opens one DEALER for each server. A message is one frame: a tagged msgspec
struct of dispatch_requests.py (gateway to server) or dispatch_replies.py (back), and its CRC-32 in four bytes, little
endian: bytes that came twice on their way have made one request of two. Join, Hello and Status go without, so that
peers of every version can refuse each other. A damaged message is lost, and with it somebody's text or request: whoever
gets one ends the session, the model server by DAMAGED, which is damaged itself. Every option is set before bind or
connect, because libzmq ignores most of them afterwards.

With keys (wire_keys.py) both ends speak CURVE: nothing is read that was not encrypted for this session by a key that
the model server knows, nor anything twice.
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec
import zmq

from vfastml.engine.addresses import bracketed
from vfastml.engine.dispatch_replies import Reply
from vfastml.engine.dispatch_requests import Request
from vfastml.engine.wire_keys import DealerKeys, KeyPair
from vfastml.errors import InvalidRequestError

PROTOCOL = 3
"""Raised when a message changes in a way that an older peer would misread."""

MAX_MESSAGE_BYTES = 64 << 20
"""libzmq drops the connection of a peer that sends more, so `encode_request` refuses it first."""

HEARTBEAT_INTERVAL_MS = 200
HEARTBEAT_TIMEOUT_MS = 1200
"""A frozen or unreachable peer is disconnected after this. libzmq's own threads answer: a busy interpreter is safe.
With half of it gateways have lost model servers, twice, on two cores under a load of 8 to 14."""

SEND_QUEUE_MESSAGES = 1000
UNREAD_MESSAGES = 0
"""That a gateway has at most; 0: as many as come. A full queue makes libzmq stop reading, and it aborts the process
when it reconnects in that state (its issue 3937). What comes is bounded all the same, by the texts that were asked
for."""

_CHECKSUM_BYTES = 4

_ENCRYPTION_BYTES = 64
"""The most that CURVE adds to a message."""

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_DOMAIN = b"vfastml"

DAMAGED = b""
"""A frame that says to a gateway: begin a new session."""

_BARE = (b"\xa4Join", b"\xa5Hello", b"\xa6Status")
"""The tags of messages without a checksum, as they stand behind a frame's first byte."""

_M = TypeVar("_M")
_S = TypeVar("_S", bound="zmq.Socket[bytes]")
_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class DamagedError(msgspec.DecodeError):
    """A frame is not what was sent."""


def encode_request(request: Request) -> bytes:
    """One frame. Raises InvalidRequestError for what cannot travel: lone surrogates, huge integers, too many bytes."""
    try:
        frame = sealed(_encoder.encode(request))
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
        raise InvalidRequestError("The request holds a value that cannot be encoded.") from error
    if len(frame) > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(f"The request is larger than {MAX_MESSAGE_BYTES} bytes.")
    return frame


def encode_reply(reply: Reply) -> bytes:
    """One frame."""
    return sealed(_encoder.encode(reply))


def decode_request(frame: bytes) -> Request:
    """Raises msgspec.DecodeError (DamagedError, or a ValidationError with the path, or itself) and nothing else."""
    return _decoded(_request_decoder, frame)


def decode_reply(frame: bytes) -> Reply:
    """Raises msgspec.DecodeError (DamagedError, or a ValidationError with the path, or itself) and nothing else."""
    return _decoded(_reply_decoder, frame)


def sealed(message: bytes) -> bytes:
    """An encoded message as it travels: with its checksum, unless it is a Join, a Hello or a Status."""
    if message.startswith(_BARE, 1):
        return message
    return message + _checksum(message)


def opened(frame: bytes) -> memoryview:
    """The message that has travelled so. Raises DamagedError if it is not as it was sent."""
    if frame.startswith(_BARE, 1):
        return memoryview(frame)
    message, checksum = memoryview(frame)[:-_CHECKSUM_BYTES], frame[-_CHECKSUM_BYTES:]
    if checksum != _checksum(message):  # which is never short
        raise DamagedError("the frame was damaged on its way, or is no message")
    return message


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], host: str, port: int, pair: KeyPair | None = None
) -> zmq.Socket[bytes]:
    """A model server's socket. `port` 0 takes a free one (see `bound_port`). Raises zmq.ZMQError if the port is taken.

    With a key pair only those come in that what answers at `open_zap` has let in.
    """
    return _bound(_router(context, pair), f"tcp://{bracketed(host)}:{port}")


def bind_ipc_router(context: zmq.Context[zmq.Socket[bytes]], path: str) -> zmq.Socket[bytes]:
    """The same on a socket file, which takes the place of one that is there. Raises zmq.ZMQError."""
    return _bound(_router(context), f"ipc://{path}")


def open_zap(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The socket at which libzmq asks, for each connection to a router with keys, whether it may come in (ZAP, RFC 27).
    A connection waits for the answer, and nothing of it is delivered before; without this socket it is refused."""
    socket = context.socket(zmq.REP)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(_ZAP_ENDPOINT)
    return socket


def bound_port(socket: zmq.Socket[bytes]) -> int:
    """The TCP port that a bound socket listens on."""
    return int(bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").rsplit(b":", 1)[1])


def open_dealer(socket: _S, endpoint: str, identity: str, keys: DealerKeys | None = None) -> _S:
    """Sets the options of a gateway's DEALER and connects it; the caller makes the socket and its monitor, so that no
    event is missed. `identity` must be new for every session: a ROUTER does not hear a second peer of the same name.

    A send while nobody is connected would wait in the queue: the caller has to know from the monitor whether there is
    a session. (IMMEDIATE would refuse it, but also drops what has arrived and is unread when the server goes.)
    """
    _with_options(socket)
    socket.setsockopt(zmq.RCVHWM, UNREAD_MESSAGES)
    socket.setsockopt(zmq.IDENTITY, identity.encode())
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret)
    socket.connect(endpoint)
    return socket


def _router(context: zmq.Context[zmq.Socket[bytes]], pair: KeyPair | None = None) -> zmq.Socket[bytes]:
    """ROUTER_MANDATORY turns a vanished gateway into EHOSTUNREACH instead of silence."""
    socket = _with_options(context.socket(zmq.ROUTER))
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if pair is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
        # Otherwise any key would do while nobody is there to ask.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return socket


def _bound(socket: zmq.Socket[bytes], endpoint: str) -> zmq.Socket[bytes]:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def _decoded(decoder: msgspec.msgpack.Decoder[_M], frame: bytes) -> _M:
    try:
        return decoder.decode(opened(frame))
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"the frame is no message: {type(error).__name__}") from error


def _checksum(message: bytes | memoryview) -> bytes:
    return zlib.crc32(message).to_bytes(_CHECKSUM_BYTES, "little")


def _with_options(socket: _S) -> _S:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, SEND_QUEUE_MESSAGES)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + _ENCRYPTION_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.IPV6, 1)
    return socket
