"""What each key has left of its minute's worth of requests and tokens, in memory that several processes may share."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

_SECRET_BYTES = 32
_BUCKET = struct.Struct("=dd")
"""Balance, and the second at which it was so; zeros in a bucket that nobody has touched, which is full."""
_MINUTE_S = 60.0
_NUM_PLACES = 1 << 16
"""For as many keys as will ever have limits while the processes live. Pages that nobody uses take no memory."""
_MOST_TRIES = 256


class Meter(IntEnum):
    """What is counted."""

    REQUESTS = 0
    TOKENS = 1


_PLACE_BYTES = _SECRET_BYTES + len(Meter) * _BUCKET.size
_SIZE = _NUM_PLACES * _PLACE_BYTES


@dataclass(slots=True)
class Level:
    """How full a bucket is, that holds what a minute brings."""

    per_minute: int
    balance: float
    """Below zero where more was used than was there."""

    def seconds_until(self, balance: float) -> float:
        """0 if it is there already."""
        return max(0.0, balance - self.balance) * _MINUTE_S / self.per_minute

    @property
    def seconds_until_full(self) -> float:
        """As `seconds_until`, of all that it holds."""
        return self.seconds_until(self.per_minute)


def shared_memory() -> BinaryIO:
    """A file without a name for Balances of several processes, which inherit its descriptor. It is gone with the last
    of them, however that ends."""
    if hasattr(os, "memfd_create"):  # needs no disk
        file: BinaryIO = os.fdopen(os.memfd_create("vfastml-balances"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(_SIZE)
    return file


class Balances:
    """Token buckets by the secrets of their keys. With the descriptor of `shared_memory` all processes that have it
    take from the same ones, under a lock of the system that ends with its holder; without, they are this process's own.
    `clock` gives monotonic seconds, the same ones in all processes."""

    def __init__(self, shared: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._memory = mmap.mmap(-1 if shared is None else shared, _SIZE)
        self._clock = clock
        self._places: dict[bytes, int] = {}

    def level(self, secret: bytes, meter: Meter, per_minute: int) -> Level:
        """As it stands now."""
        return self.take(secret, meter, per_minute, 0)

    def take(self, secret: bytes, meter: Meter, per_minute: int, amount: float, least: float = -math.inf) -> Level:
        """The level as it was; then so much is taken, if that level was `least` or more."""
        # No `with`, which would cost as much as all the rest.
        place = self._place(secret)
        start = place + _SECRET_BYTES + meter * _BUCKET.size
        self._lock(place, _PLACE_BYTES)
        try:
            now_s = self._clock()
            level = Level(per_minute, self._balance(start, per_minute, now_s))
            if amount and level.balance >= least:
                _BUCKET.pack_into(self._memory, start, level.balance - amount, now_s)
        finally:
            self._unlock(place, _PLACE_BYTES)
        return level

    def _balance(self, start: int, per_minute: int, now_s: float) -> float:
        balance, at_s = _BUCKET.unpack_from(self._memory, start)
        if not at_s:
            return float(per_minute)
        return float(min(per_minute, balance + (now_s - at_s) * per_minute / _MINUTE_S))

    def _place(self, secret: bytes) -> int:
        place = self._places.get(secret)
        if place is None:
            self._lock(0, _SIZE)
            try:
                place = self._places[secret] = self._find_place(secret)
            finally:
                self._unlock(0, _SIZE)
        return place

    def _find_place(self, secret: bytes) -> int:
        """Where the secret stands, put there if it is new. A key that finds no room in thousands shares with another:
        rather too little for it than no bound."""
        first = int.from_bytes(secret[:8], "big")
        for offset in range(_MOST_TRIES):
            place = (first + offset) % _NUM_PLACES * _PLACE_BYTES
            held = self._memory[place : place + _SECRET_BYTES]
            if held == secret:
                return place
            if not any(held):
                self._memory[place : place + _SECRET_BYTES] = secret
                return place
        return first % _NUM_PLACES * _PLACE_BYTES

    def _lock(self, start: int, length: int) -> None:
        if self._shared is not None:
            fcntl.lockf(self._shared, fcntl.LOCK_EX, length, start)

    def _unlock(self, start: int, length: int) -> None:
        if self._shared is not None:
            fcntl.lockf(self._shared, fcntl.LOCK_UN, length, start)
