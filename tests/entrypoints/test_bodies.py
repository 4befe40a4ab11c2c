"""How much memory bodies may take while they are coming."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive

from vfastml.engine.tenant import TENANT, Tenant
from vfastml.entrypoints.bodies import BodyReader
from vfastml.errors import InternalServerTooBusyError, RateLimitError, RequestTooLargeError

SCOPE = {"type": "http", "headers": []}
LARGE = bytes(100_000)


class Client:
    """Sends what it is told to, and is silent in between."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def send(self, body: bytes, more_body: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more_body})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def receive(self) -> Receive:
        return self._messages.get


async def started(reader: BodyReader, body: bytes) -> tuple[Client, asyncio.Task[bytes | None]]:
    """A client that has sent this much, and who reads it."""
    client = Client()
    client.send(body)
    reading = asyncio.create_task(reader.read(SCOPE, client.receive))
    for _ in range(5):
        await asyncio.sleep(0)
    return client, reading


async def test_a_body_in_pieces() -> None:
    client, reading = await started(BodyReader(10), b"one ")
    client.send(b"two", more_body=False)
    assert await reading == b"one two"


@pytest.mark.rule("S4")
async def test_too_large_by_count() -> None:
    client, reading = await started(BodyReader(10), b"one ")
    client.send(b"two three", more_body=False)
    with pytest.raises(RequestTooLargeError):
        await reading


@pytest.mark.rule("S4")
@pytest.mark.parametrize("length", [b"11", b"9" * 5000])
async def test_too_large_by_its_own_account(length: bytes) -> None:
    with pytest.raises(RequestTooLargeError):
        await BodyReader(10).read({**SCOPE, "headers": [(b"content-length", length)]}, Client().receive)


@pytest.mark.rule("S4")
async def test_half_sent_large_bodies_have_a_bound_together_and_small_ones_a_place() -> None:
    reader = BodyReader(1 << 20, max_bytes_on_the_way=len(LARGE))
    waiting = [await started(reader, LARGE) for _ in range(2)]
    _, refused = await started(reader, LARGE)
    with pytest.raises(InternalServerTooBusyError, match="large"):
        await refused
    client, small = await started(reader, b"small ")
    client.send(b"one", more_body=False)
    assert await small == b"small one"
    for client, reading in waiting:
        client.send(b"", more_body=False)
        assert await reading == LARGE


@pytest.mark.rule("S4")
async def test_the_large_bodies_of_one_key_leave_room_for_others() -> None:
    reader = BodyReader(1 << 20, max_bytes_on_the_way=4 * (len(LARGE) - 65536))
    with working_for(Tenant("ann", b"1")):
        waiting = [await started(reader, LARGE) for _ in range(3)]
        _, refused = await started(reader, LARGE)
        with pytest.raises(RateLimitError, match="large"):
            await refused
        client, small = await started(reader, b"small")
        client.send(b"", more_body=False)
        assert await small == b"small"
        assert len(waiting) == 3
    with working_for(Tenant("bob", b"2")):
        client, reading = await started(reader, LARGE)
        client.send(b"", more_body=False)
        assert await reading == LARGE


@contextlib.contextmanager
def working_for(tenant: Tenant) -> Iterator[None]:
    before = TENANT.set(tenant)
    try:
        yield
    finally:
        TENANT.reset(before)


@pytest.mark.rule("S4")
@pytest.mark.parametrize("end", ["finish", "leave", "cancel", "grow"])
async def test_room_is_given_back_however_a_body_ends(end: str) -> None:
    reader = BodyReader(150_000, max_bytes_on_the_way=len(LARGE))
    for _ in range(5):
        client, reading = await started(reader, LARGE)
        if end == "finish":
            client.send(b"", more_body=False)
        elif end == "leave":
            client.leave()
        elif end == "cancel":
            reading.cancel()
        else:
            client.send(LARGE)
        (outcome,) = await asyncio.gather(reading, return_exceptions=True)
        assert not isinstance(outcome, InternalServerTooBusyError)
