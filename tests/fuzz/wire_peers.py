"""Two peers that speak the wire badly: a gateway to a model server, and a model server to a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterable
from random import Random

import msgspec
import zmq
import zmq.asyncio

from tests.fuzz.findings import Findings
from tests.fuzz.frame_cases import LIAR, damaged_greeting, reply_frame, request_frame
from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Failed, Hello, Reply, ServedModel, StepReply
from vfastml.engine.dispatch_requests import CancelReq, Join, Request
from vfastml.errors import from_kind

_MOST_OPEN = 32
_PATIENCE_S = 60.0
_TAKEN_ID = "A request with this id is already open."
"""Only a gateway that is broken sends one twice."""


class WrongGateway:
    """A DEALER, whose every sound request has to get exactly one terminal."""

    def __init__(self, port: int, findings: Findings) -> None:
        self._port = port
        self._findings = findings
        self._name = f"wrong-{secrets.token_hex(4)}"
        self._context = zmq.asyncio.Context()
        self._socket = wire.open_dealer(self._context.socket(zmq.DEALER), f"tcp://127.0.0.1:{port}", self._name)
        self._open: dict[str, int] = {}
        """Case number of each request without a terminal."""
        self._changed = asyncio.Event()

    async def send_all(self, seed: int, numbers: Iterable[int]) -> None:
        """Those cases, in order; then waits for what is open."""
        reading = asyncio.create_task(self._read())
        await self._join()
        for number in numbers:
            rng = Random(f"{seed}:{number}")
            if rng.random() < 0.02:
                await asyncio.to_thread(self._greet_wrongly, rng)
            else:
                await self._send(number, request_frame(rng, f"{self._name}-{number}"))
            await self._wait_below(_MOST_OPEN)
        if not await self._wait_below(1):
            self._findings.add(f"{len(self._open)} requests on the wire have no end, such as", min(self._open.values()))
        reading.cancel()
        self._context.destroy(linger=0)

    async def _join(self) -> None:
        """Begins a session: the server drops what was open in the last one."""
        self._open.clear()
        await self._socket.send(wire.encode_request(Join(wire.PROTOCOL, self._name)))

    async def _send(self, number: int, frame: bytes) -> None:
        try:
            request = wire.decode_request(frame)
        except msgspec.DecodeError:
            self._findings.note("request frame", "no message")
        else:
            self._expect(number, request)
        await self._socket.send_multipart([frame[:7], frame[7:]] if number % 50 == 0 else [frame])

    def _expect(self, number: int, request: Request) -> None:
        if isinstance(request, Join):
            self._open.clear()  # the server drops what this gateway had open
        elif isinstance(request, CancelReq):
            self._open.pop(request.request_id, None)
        else:
            self._open[request.request_id] = number
            return
        self._findings.note("request frame", type(request).__name__)

    async def _read(self) -> None:
        while True:
            frame = await self._socket.recv()
            if frame == wire.DAMAGED:
                await self._join()
                self._changed.set()
                continue
            reply = wire.decode_reply(frame)
            for ended in reply.ended if isinstance(reply, StepReply) else [reply]:
                self._end(ended)

    def _end(self, reply: Reply) -> None:
        if not hasattr(reply, "request_id") or type(reply).__name__ == "Accepted":
            return
        number = self._open.pop(reply.request_id, None)
        self._changed.set()
        self._findings.note("request frame", reply.kind if isinstance(reply, Failed) else type(reply).__name__)
        if isinstance(reply, Failed) and _is_our_mistake(reply):
            self._findings.add(f"{reply.kind}: {reply.message}", number)

    async def _wait_below(self, count: int) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while len(self._open) >= count:
                    self._changed.clear()
                    await self._changed.wait()
        return len(self._open) < count

    def _greet_wrongly(self, rng: Random) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5.0) as peer:
            peer.sendall(damaged_greeting(rng))
            peer.settimeout(0.05)
            peer.recv(100)
        self._findings.note("request frame", "no greeting")


class WrongServer:
    """A ROUTER that a gateway is connected to: it says Hello as it should, and then all else as it should not. Nobody
    asks for its model, so that a failure that it reports is nobody's answer."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._context = zmq.asyncio.Context()
        self._socket = wire.bind_router(self._context, "127.0.0.1", 0)
        self.endpoint = f"tcp://127.0.0.1:{wire.bound_port(self._socket)}"
        self._gateway: bytes | None = None
        self._joined = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def send_all(self, seed: int, numbers: Iterable[int]) -> None:
        """Those cases, in order."""
        for number in numbers:
            await asyncio.wait_for(self._joined.wait(), _PATIENCE_S)
            frame = reply_frame(Random(f"{seed}:{number}"), f"chatcmpl-{number}")
            await self._tell(frame)
            self._findings.note("reply frame", "sent")
            if number % 100 == 0:
                await self._tell(_hello())

    def close(self) -> None:
        self._reading.cancel()
        self._context.destroy(linger=0)

    async def _read(self) -> None:
        while True:
            self._gateway, *frames = await self._socket.recv_multipart()
            if isinstance(wire.decode_request(frames[0]), Join):
                await self._tell(_hello())
                self._joined.set()

    async def _tell(self, frame: bytes) -> None:
        assert self._gateway is not None
        with contextlib.suppress(zmq.ZMQError):  # it has just reconnected, under another name
            await self._socket.send_multipart([self._gateway, frame])


def _hello() -> bytes:
    model = ServedModel(LIAR, f"org/{LIAR}")
    return wire.encode_reply(Hello(wire.PROTOCOL, secrets.token_hex(4), "text_generation", [model]))


def _is_our_mistake(failed: Failed) -> bool:
    status = from_kind(failed.kind, failed.message).status
    return status >= 500 and status != 503 and failed.message != _TAKEN_ID
