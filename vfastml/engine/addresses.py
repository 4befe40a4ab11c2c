"""Host names and addresses: how they are written, and who can reach them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect. Names other than localhost are taken to be reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bracketed(host: str) -> str:
    """The host as it stands before `:port` in a url or an endpoint: an IPv6 address goes into brackets."""
    return f"[{host}]" if ":" in host else host


MAX_IPC_PATH_BYTES = 107
"""Of a socket file's path: what the system's own structure has room for."""


def is_exposed(endpoint: str) -> bool:
    """Whether what goes to that endpoint leaves this machine, as far as one can tell."""
    parts = urlsplit(endpoint)
    return parts.scheme == "tcp" and not is_loopback(parts.hostname or "")
