"""Why two ends of the wire did not come together, as libzmq's events tell it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import zmq

FAILURES = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
"""The events that `failure_of` understands."""

_CRYPTOGRAPHIC = 0x11000001
_MECHANISM_MISMATCH = 0x11000002
# ZMQ_PROTOCOL_ERROR_ZMTP_... of zmq.h


class HandshakeFailure(Enum):
    """What an end has seen."""

    UNKNOWN_KEY = auto()
    """At a gateway: its key is not on the model server's list."""
    OTHER_MECHANISM = auto()
    """One end has keys, and the other has not."""
    OTHER_SERVER_KEY = auto()
    """At a model server: what came was meant for another key than its own."""
    HUNG_UP = auto()
    """The other end closed the connection, for a reason of its own."""
    NO_PEER = auto()
    """What came is no handshake."""


def failure_of(event: int, value: int) -> HandshakeFailure:
    """`value` comes with the event."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return HandshakeFailure.UNKNOWN_KEY
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return HandshakeFailure.HUNG_UP
    if value == _MECHANISM_MISMATCH:
        return HandshakeFailure.OTHER_MECHANISM
    return HandshakeFailure.OTHER_SERVER_KEY if value == _CRYPTOGRAPHIC else HandshakeFailure.NO_PEER


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a gateway cannot reach a model server."""

    shown: str
    """To anybody."""
    logged: str
    """What the model server does, and what the operator can do."""


_NO_PEER = Refusal("what answers is no model server", "does not answer like a model server")
_WITH_KEYS = {
    HandshakeFailure.UNKNOWN_KEY: Refusal(
        "a model server does not know this gateway's key",
        "does not know this gateway's key: put its gateway-NAME.key into the folder of the server's --wire-keys",
    ),
    HandshakeFailure.OTHER_MECHANISM: Refusal(
        "a model server has no wire keys", "has no wire keys, and this gateway has: give it --wire-keys"
    ),
    HandshakeFailure.HUNG_UP: Refusal(
        "a model server ends the connection before keys are shown",
        "ends the connection before keys are shown: its key may be another one than in the server-NAME.key here",
    ),
}
_WITHOUT_KEYS = {
    HandshakeFailure.OTHER_MECHANISM: Refusal(
        "a model server asks for wire keys", "asks for wire keys: give this gateway --wire-keys"
    ),
    HandshakeFailure.HUNG_UP: None,
}


def refusal_of(failure: HandshakeFailure, *, has_keys: bool) -> Refusal | None:
    """What a gateway, with keys or without, makes of it; None for what a bad network does, too."""
    return (_WITH_KEYS if has_keys else _WITHOUT_KEYS).get(failure, _NO_PEER)
