"""The bad network itself: each fault does to bytes what it says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.chaos.network_faults import Garbled, Late, NetworkFault, Repeated, Sliced, Stalled, Truncated
from tests.chaos.proxy import ChaosProxy

SENT = b"what is sent through the proxy"


class Line(NamedTuple):
    """A connection through a proxy, to somebody who sends everything back."""

    proxy: ChaosProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def echo(self, count: int = len(SENT)) -> bytes:
        self.writer.write(SENT)
        return await asyncio.wait_for(self.reader.readexactly(count), 5)


@contextlib.asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async def send_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(send_back, "127.0.0.1", 0)
    proxy = ChaosProxy(server.sockets[0].getsockname()[1])
    await proxy.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Line(proxy, reader, writer)
    finally:
        writer.close()
        await asyncio.wait_for(proxy.close(), 5)
        server.close()


@pytest.mark.parametrize("fault", [NetworkFault(), Late(0.02), Sliced()])
async def test_what_only_takes_longer_arrives_whole(fault: NetworkFault) -> None:
    async with line() as through:
        through.proxy.suffer(fault)
        assert await through.echo() == SENT


async def test_a_stall_keeps_bytes_until_it_is_over() -> None:
    async with line() as through:
        through.proxy.suffer(Stalled())
        waiting = asyncio.create_task(through.echo())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        through.proxy.heal()
        assert await waiting == SENT


@pytest.mark.parametrize("fault", [Garbled(random.Random(1)), Repeated(random.Random(1))])
async def test_bytes_that_were_not_sent_arrive_too(fault: NetworkFault) -> None:
    async with line() as through:
        through.proxy.suffer(fault)
        assert await through.echo(len(SENT) + 1) != SENT + SENT[:1]


async def test_a_truncated_chunk_ends_the_connection() -> None:
    async with line() as through:
        through.proxy.suffer(Truncated(random.Random(1)))
        with pytest.raises(asyncio.IncompleteReadError) as got:
            await through.echo()
        assert SENT.startswith(got.value.partial)


async def test_a_reset_is_seen_as_one() -> None:
    async with line() as through:
        assert await through.echo() == SENT
        through.proxy.reset()
        with pytest.raises(ConnectionResetError):
            await through.echo()


async def test_a_swallowed_connection_stays_silent_when_others_work_again() -> None:
    async with line() as through:
        assert await through.echo() == SENT
        through.proxy.swallow()
        waiting = asyncio.create_task(through.echo())
        through.proxy.heal()
        reader, writer = await asyncio.open_connection("127.0.0.1", through.proxy.port)
        writer.write(SENT)
        assert await asyncio.wait_for(reader.readexactly(len(SENT)), 5) == SENT
        assert not waiting.done()
        waiting.cancel()
        writer.close()


async def test_it_knows_when_the_network_was_not_well() -> None:
    async with line() as through:
        before = asyncio.get_running_loop().time()
        assert not through.proxy.downtime.touches(before)
        through.proxy.suffer(Late())
        through.proxy.heal()
        assert through.proxy.downtime.touches(before)
        assert not through.proxy.downtime.touches(before + 60)
