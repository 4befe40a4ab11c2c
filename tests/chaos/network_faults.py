"""What a bad network does to the bytes that pass through it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

Carry = Callable[[bytes], Awaitable[None]]
"""Brings bytes to the other end."""


class CutError(Exception):
    """The connection ends here."""


class NetworkFault:
    """How one chunk is brought to the other end. This one is a network that works."""

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        """Calls `carry` with what arrives. Raises CutError to end the connection."""
        await carry(chunk)


class Late(NetworkFault):
    """Everything arrives, in order, a while later."""

    def __init__(self, seconds: float = 0.2) -> None:
        self._seconds = seconds

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        await asyncio.sleep(self._seconds)
        await carry(chunk)


class Stalled(NetworkFault):
    """Nothing arrives until the network is well again; then all of it does."""

    def __init__(self) -> None:
        self._is_over = asyncio.Event()

    def end(self) -> None:
        """Lets go what has waited."""
        self._is_over.set()

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        await self._is_over.wait()
        await carry(chunk)


class Sliced(NetworkFault):
    """One byte at a time."""

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        for position in range(len(chunk)):
            await carry(chunk[position : position + 1])
            await asyncio.sleep(0)


class Truncated(NetworkFault):
    """A part of the chunk, and the end of the connection."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        await carry(chunk[: self._chance.randrange(len(chunk))])
        raise CutError


class Garbled(NetworkFault):
    """Bytes that nobody has sent stand between the others. Bytes are only put in: one that is changed on its way is
    caught by TCP's own checksum."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        position = self._chance.randrange(len(chunk))
        await carry(chunk[:position] + self._chance.randbytes(self._chance.randint(1, 64)) + chunk[position:])


class Repeated(NetworkFault):
    """A piece of the chunk comes twice."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def bring(self, chunk: bytes, carry: Carry) -> None:
        begin, end = sorted(self._chance.randint(0, len(chunk)) for _ in range(2))
        await carry(chunk[:end] + chunk[begin:])
