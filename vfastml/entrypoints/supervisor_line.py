"""What a supervisor and its workers tell each other, over a pair of sockets of which a worker has one as its stdin."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

import msgspec

from vfastml.entrypoints.gateway_config import GatewayConfig

SERVING = b"s"
"""From a worker: it answers connections."""
READY = b"r"
"""From a worker: a model can answer."""


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker is to serve, and where. It goes by the socket, as other users can read a command line."""

    prog: str
    """How messages call the program."""
    host: str
    port: int
    config: GatewayConfig
    shared_balances: int
    """The descriptor, in the worker too, of what all of them know of keys' limits."""

    def encode(self) -> bytes:
        """As one line."""
        return msgspec.json.encode(self) + b"\n"


class SupervisorLine:
    """A worker's end. It becomes readable when the supervisor is gone, however that came: nothing but the order is
    ever sent to a worker."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def order(self) -> WorkerOrder | None:
        """What to serve; None if the supervisor has gone already."""
        with self._connection.makefile("rb") as stream:
            line = stream.readline()
        return msgspec.json.decode(line, type=WorkerOrder) if line else None

    def tell(self, event: bytes) -> None:
        """Pass SERVING or READY on."""
        with contextlib.suppress(OSError):  # it is gone: this line is readable then
            self._connection.send(event)

    def fileno(self) -> int:
        return self._connection.fileno()
