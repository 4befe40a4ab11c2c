"""Peers that follow no protocol, or follow it badly: at the gateway's port, and at a model server's."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import struct
from collections.abc import AsyncIterator

import zmq
import zmq.asyncio

from vfastml.engine.dispatch_requests import CancelReq, Join, SamplingParams, TextGenerationReq, WorkReq
from vfastml.engine.wire import PROTOCOL, encode_request, open_dealer

_HTTP_BEGINNINGS = (
    b"",
    b"GET / HTTP/1.1\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET /" + b"a" * 70_000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
_ZMTP_GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
_ZMTP_READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
_LARGE_FRAME = b"\x02"
_SECONDS = 5.0


async def half_open_clients(port: int, chance: random.Random, count: int, seconds: float) -> None:
    """Connections that begin to say something, or say garbage, and then nothing more."""
    writers = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(chance.choice(_HTTP_BEGINNINGS) + chance.randbytes(chance.randint(0, 200)))
            writers.append(writer)
    await asyncio.sleep(seconds)
    for writer in writers:
        writer.transport.abort()


async def garbage_bytes(port: int, chance: random.Random, count: int) -> None:
    """At a wire's port: bytes that are no ZMTP, some of them behind a proper greeting."""
    for _ in range(count):
        with contextlib.suppress(OSError, TimeoutError):
            greeting = chance.choice((b"", _ZMTP_GREETING, _ZMTP_GREETING + _ZMTP_READY))
            await _say(port, greeting + chance.randbytes(chance.randint(1, 4000)))


async def huge_frame(port: int, size: int) -> int:
    """Announces a frame of that many bytes and begins to send it. Returns how many were taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = 0
    with contextlib.suppress(OSError):
        writer.write(_ZMTP_GREETING + _ZMTP_READY + _LARGE_FRAME + struct.pack(">Q", size))
        await writer.drain()
        await asyncio.sleep(0.2)
        while taken < size and not reader.at_eof():
            writer.write(b"\0" * (1 << 16))
            await writer.drain()
            taken += 1 << 16
    writer.transport.abort()
    return taken


async def garbage_messages(port: int, chance: random.Random, count: int) -> None:
    """Frames of a gateway that has lost its mind: garbage, pieces of messages, cancels of what was never asked."""
    async with strange_gateway(port) as dealer:
        for number in range(count):
            await dealer.send(_strange_frame(chance, number))
        await asyncio.sleep(0.1)


async def deaf_gateway(port: int, chance: random.Random, count: int, seconds: float) -> None:
    """Asks for long answers, never reads one, and is gone."""
    async with strange_gateway(port) as dealer:
        await dealer.send(encode_request(Join(PROTOCOL, "deaf")))
        for _ in range(count):
            await dealer.send(encode_request(_long_request(chance)))
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def strange_gateway(port: int) -> AsyncIterator[zmq.asyncio.Socket]:
    """A DEALER of its own, gone without a word at the end."""
    with zmq.asyncio.Context() as context:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.SNDTIMEO, int(_SECONDS * 1000))
        dealer.setsockopt(zmq.RCVHWM, 1)
        open_dealer(dealer, f"tcp://127.0.0.1:{port}", f"strange-{secrets.token_hex(4)}")
        with contextlib.suppress(zmq.Again):
            yield dealer
        dealer.close(linger=0)


def _strange_frame(chance: random.Random, number: int) -> bytes:
    message = encode_request(_long_request(chance))
    return chance.choice(
        (
            chance.randbytes(chance.randint(0, 2000)),
            message[: chance.randrange(len(message))],
            message + chance.randbytes(8),
            encode_request(CancelReq(request_id=f"never-{number}")),
            encode_request(Join(PROTOCOL + chance.randint(1, 9), "newer")),
        )
    )


def _long_request(chance: random.Random) -> WorkReq:
    return TextGenerationReq(
        request_id=f"strange-{chance.getrandbits(64):x}",
        prompt="x",
        sampling=SamplingParams(max_tokens=300, ignore_eos=True),
    )


async def _say(port: int, data: bytes) -> None:
    async with asyncio.timeout(_SECONDS):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        with contextlib.suppress(OSError):
            await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
