"""A TCP proxy that remembers what a gateway has sent, and can change one piece of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from tests.models_servers.raw_gateway import PATIENCE_S

Change = Callable[[bytes], bytes]
_LARGE_BYTES = 2000
"""No heartbeat and no handshake is so large."""


class RecordingProxy:
    """Passes connections on to a port of this machine, from beginning to end of the `with` block."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = b""
        """By the gateway, on all connections."""
        self.server_hung_up = threading.Event()
        self._change: Change | None = None
        self._sockets = [self._listener]

    def __enter__(self) -> RecordingProxy:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def change_next(self, change: Change) -> None:
        """Of the next large piece."""
        self._change = change

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target_port), PATIENCE_S)
                self._sockets += [near, far]
                self._start(self._pass_to_server, near, far)
                self._start(self._pass_to_gateway, far, near)

    def _pass_to_server(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                self.sent += data
                if self._change is not None and len(data) > _LARGE_BYTES:
                    data, self._change = self._change(data), None
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _pass_to_gateway(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 20):
                near.sendall(data)
        self.server_hung_up.set()
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()
