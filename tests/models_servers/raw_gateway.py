"""A gateway that is no more than its socket: tests see each message as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import zmq

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Reply, Status
from vfastml.engine.dispatch_requests import Join, Request
from vfastml.engine.wire_keys import DealerKeys

_R = TypeVar("_R")
PATIENCE_S = 60.0


class RawGateway:
    """A DEALER that has joined, unless told otherwise. Leaving the `with` block closes it."""

    def __init__(self, port: int | str, *, joins: bool = True, keys: DealerKeys | None = None) -> None:
        self.name = f"raw-{secrets.token_hex(4)}"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        endpoint = f"tcp://127.0.0.1:{port}" if isinstance(port, int) else port
        self._socket = wire.open_dealer(self._context.socket(zmq.DEALER), endpoint, self.name, keys)
        if joins:
            self.join()

    def __enter__(self) -> RawGateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def join(self) -> None:
        self.send(Join(wire.PROTOCOL, self.name))

    def send(self, *requests: Request) -> None:
        for request in requests:
            self.send_frames(wire.encode_request(request))

    def send_frames(self, *frames: bytes) -> None:
        """As one message."""
        self._socket.setsockopt(zmq.SNDTIMEO, int(PATIENCE_S * 1000))
        self._socket.send_multipart(frames)

    def next_frame(self, timeout_s: float = PATIENCE_S) -> bytes:
        assert self._socket.poll(int(timeout_s * 1000)), "nothing came"
        [frame] = self._socket.recv_multipart()
        return frame

    def next_of_any_kind(self) -> Reply:
        return wire.decode_reply(self.next_frame())

    def next(self) -> Reply:
        """The next reply that is no beat."""
        while isinstance(reply := self.next_of_any_kind(), Status):
            pass
        return reply

    def next_status(self) -> Status:
        return self.until(lambda reply: reply if isinstance(reply, Status) else None)

    def until(self, found: Callable[[Reply], _R | None]) -> _R:
        """What `found` makes of the first reply that is what it looks for."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            answer = found(self.next_of_any_kind())
            if answer is not None:
                return answer
        raise AssertionError("it never came")
