"""One HTTP request on one connection, with as little work for each chunk as Python allows.

The client shares the cores with the server that it measures. CPU for 1000 chunks, 32 streams at once, from a server
that makes them for nothing: httpx 92 ms, httpx on uvloop 57, aiohttp on uvloop 15, this file on uvloop 11.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import urlsplit

import httptools

from benchmarks.errors import BenchmarkError

OK = 200

_CONNECT_S = 10.0


class ExchangeError(Exception):
    """There is no whole answer: the connection failed or broke, or what came is not HTTP."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and what each request to it carries."""

    url: str
    host: str
    port: int
    base_path: str
    api_key: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    ip: str | None = None
    """Set by `reach`, so that no request waits for a name to be resolved."""

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> ServerAddress:
        """`http://HOST:PORT`, with or without `/v1` at its end. Raises BenchmarkError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            is_server = parts.scheme in ("http", "https") and bool(host.encode("idna"))
        except ValueError:
            is_server = False
        if not is_server:
            raise BenchmarkError(f"{url} is not the URL of a server; write http://HOST:PORT.")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(url, host, port or (443 if tls else 80), parts.path.rstrip("/").removesuffix("/v1"), api_key, tls)

    async def reach(self) -> ServerAddress:
        """The same with its IP address. Raises BenchmarkError if nobody listens."""
        try:
            async with asyncio.timeout(10):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, self.host, self.port
                )
        except (OSError, TimeoutError):
            raise BenchmarkError(f"No server answers at {self.url}; start it, or correct --url.") from None
        ip: str = transport.get_extra_info("peername")[0]
        transport.close()
        return replace(self, ip=ip)

    def request(self, method: str, path: str, body: bytes) -> bytes:
        """A whole request as it is sent."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.base_path}{path} HTTP/1.1", f"host: {host}:{self.port}", "connection: close"]
        lines += ["accept: */*", "content-type: application/json", f"content-length: {len(body)}"]
        if self.api_key:
            lines.append(f"authorization: Bearer {self.api_key}")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Answer:
    """What came back."""

    sent_at: float = 0.0
    """When the request left, on the clock of `time.perf_counter`."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """Empty where the body was streamed."""


async def exchange(
    server: ServerAddress,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    on_data: Callable[[bytes], None] | None = None,
    answer: Answer | None = None,
) -> Answer:
    """Ask, and wait for the end of the answer. Raises ExchangeError.

    `on_data` gets the body of a 200 as it comes. `answer` is filled meanwhile, for a caller that may give up.
    """
    answer = answer or Answer()
    loop = asyncio.get_running_loop()
    connection = _Connection(server.request(method, path, body), answer, on_data)
    name = server.host if server.tls else None
    try:
        transport, _ = await loop.create_connection(
            lambda: connection, server.ip or server.host, server.port, ssl=server.tls, server_hostname=name
        )
    except OSError as error:
        raise ExchangeError(f"cannot connect: {error.strerror or error}") from error
    try:
        await connection.ended
    finally:
        transport.abort()
    return answer


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, answer: Answer, on_data: Callable[[bytes], None] | None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._answer = answer
        self._on_data = on_data
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._answer.sent_at = time.perf_counter()
        cast(asyncio.WriteTransport, transport).write(self._request)  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("the answer is not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        headers = self._answer.headers
        lasts_until_closed = self._answer.status and not {"content-length", "transfer-encoding"} & headers.keys()
        self._end(None if lasts_until_closed else "the connection was closed before the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._answer.status != OK:
            self._on_data = None

    def on_body(self, data: bytes) -> None:
        if self._on_data is None:
            self._answer.body += data
        else:
            self._on_data(data)

    def on_message_complete(self) -> None:
        self._end()

    def _end(self, failure: str | None = None) -> None:
        if self.ended.done():
            return
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(ExchangeError(failure))
