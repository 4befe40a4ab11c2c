"""A TCP proxy that can be told to be a bad network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tests.chaos.downtime import Downtime
from tests.chaos.network_faults import CutError, NetworkFault, Stalled

_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class ChaosProxy:
    """Passes connections on to a port of this machine, from `open` to `close`, as well as the fault of the moment lets
    it. A connection that a blackhole has swallowed stays open and silent for good, as behind a router that has
    forgotten it."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.downtime = Downtime()
        """When the network was not well."""
        self.fault = NetworkFault()
        """How bytes travel now."""
        self._target_port = target_port
        self._is_blackhole = False
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends every connection."""
        self.heal()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.reset()
        await asyncio.gather(*(connection.ended.wait() for connection in self._connections))

    def suffer(self, fault: NetworkFault) -> None:
        """This is how bytes travel from now on."""
        self.downtime.begin()
        self.fault = fault

    def swallow(self) -> None:
        """Every connection that there is, and each new one, is a half-open one from now on: no byte passes, no end."""
        self.downtime.begin()
        self._is_blackhole = True
        for connection in self._connections:
            connection.is_swallowed = True

    def reset(self) -> None:
        """An RST to both ends of every connection."""
        self.downtime.begin()
        self.downtime.end()
        for connection in list(self._connections):
            connection.reset()

    def heal(self) -> None:
        """New connections, and old ones that have survived, work as they should."""
        if isinstance(self.fault, Stalled):
            self.fault.end()
        self.fault, self._is_blackhole = NetworkFault(), False
        self.downtime.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, (reader, writer), (far_reader, far_writer))
        connection.is_swallowed = self._is_blackhole
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """Two sockets, and two tasks that bring bytes from one to the other."""

    def __init__(self, proxy: ChaosProxy, near: _End, far: _End) -> None:
        self.is_swallowed = False
        self.ended = asyncio.Event()
        self._is_reset = asyncio.Event()
        self._proxy = proxy
        self._ends = near, far
        for _, writer in self._ends:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Until an end closes it, a fault cuts it, or it is reset."""
        near, far = self._ends
        pumps = [asyncio.create_task(self._pump(near[0], far[1])), asyncio.create_task(self._pump(far[0], near[1]))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for _, writer in self._ends:
                writer.close()
            self.ended.set()

    def reset(self) -> None:
        """Ends both sockets by RST."""
        for _, writer in self._ends:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._is_reset.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def carry(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        with contextlib.suppress(OSError, CutError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if not self.is_swallowed:
                    await self._proxy.fault.bring(chunk, carry)
        if self.is_swallowed:
            await self._is_reset.wait()  # the other end never hears of this one's
