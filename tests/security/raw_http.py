"""HTTP as bytes, for requests that no client library would send."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    """0: the connection ended without an answer."""
    body: bytes


def ask(url: str, pieces: Iterable[bytes]) -> Answer:
    """Sends these bytes as long as somebody takes them, and reads until the other side closes."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        return _read(connection)


def post(path: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request whose answer ends the connection; of the headers, none is added but these and the host."""
    lines = [f"POST {path} HTTP/1.1", "host: x", "connection: close", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def with_length(path: str, body: bytes, *headers: tuple[str, str]) -> bytes:
    return post(path, [("content-length", str(len(body))), *headers], body)


def _read(connection: socket.socket) -> Answer:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status = head.split(b" ")[1] if head.startswith(b"HTTP/") else b"0"
    return Answer(int(status), body)
