"""Ports that are still free when a process comes back to its own."""

from __future__ import annotations

import contextlib
import random
import socket

_BELOW_OUTGOING = range(15_000, 32_000)
"""Linux takes the near end of a connection from above: while a process is down, its port must not be taken so."""


def lasting_ports(count: int) -> list[int]:
    """That many, which nobody listens on now."""
    found: set[int] = set()
    while len(found) < count:
        port = random.choice(_BELOW_OUTGOING)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)
