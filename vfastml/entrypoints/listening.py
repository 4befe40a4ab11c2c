"""The socket that a gateway listens on, alone or beside others of its kind."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable

from vfastml.engine.addresses import is_loopback
from vfastml.entrypoints.gateway_config import GatewayConfig

_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; `port` 0 takes a free one. Raises OSError when it cannot be had."""
    return _listening(_bound(host, port))


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps the port for those that `join`, and does not listen itself. Raises OSError as `bind` does."""
    reserved = _bound(host, port)
    # Not before: it would have let us join a port that is another service's.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # It was for connections that linger from before. A socket that does not listen would share the port by it.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return reserved


def join(host: str, port: int) -> socket.socket:
    """One more listening socket on a port that is reserved. Raises OSError when it is not.

    Each has a queue of its own, among which the system spreads new connections by their addresses. One listening socket
    that all processes inherit does that badly: whoever runs first takes them, of a burst of 64 now and then all, and
    keeps them while they stream. What it does better, that a process which dies leaves no connection unaccepted behind,
    is about microseconds of connections, beside all those that were open in that process. New ones go to the processes
    that are left at once, and to a new process once it can serve.
    """
    return _listening(_bound(host, port, socket.SO_REUSEPORT))


def claim(how: Callable[[str, int], socket.socket], host: str, port: int, config: GatewayConfig) -> socket.socket:
    """What `bind`, `reserve` or `join` gives. Leaves by SystemExit 1, with one line on stderr, when the address cannot
    be had, or may not be without keys."""
    if not (is_loopback(host) or config.asks_for_keys or config.insecure):
        sys.exit(
            f"Refusing to listen on {host} without API keys: give some with --api-key-file, or say with --insecure "
            "that everybody may come in."
        )
    try:
        return how(host, port)
    except OSError as error:
        sys.exit(f"Cannot listen on {host} port {port}: {error.strerror}.")


def _bound(host: str, port: int, *options: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "no host can have that name") from error
    bound = socket.socket(family, kind, protocol)
    try:
        for option in (socket.SO_REUSEADDR, *options):
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _listening(bound: socket.socket) -> socket.socket:
    try:
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
