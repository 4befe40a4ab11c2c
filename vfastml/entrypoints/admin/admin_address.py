"""Where the admin listener is, if there is one."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable

from vfastml.engine.addresses import bracketed, is_loopback
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.gateway_config import GatewayConfig

logger = logging.getLogger(__name__)

_MAX_PORT = (1 << 16) - 1


def claim_admin(
    how: Callable[[str, int], socket.socket], main_port: int, config: GatewayConfig, hooks: AdminHooks | None = None
) -> socket.socket | None:
    """What `bind`, `reserve` or `join` gives for the admin listener of a gateway on `main_port`; None without one. A
    port that was not asked for may be taken: then a warning says so. Leaves by SystemExit 1, with one line on stderr,
    when one that was asked for cannot be had, or when other machines could come in and no key of `hooks` is an
    operator's. Without `hooks` somebody has looked already."""
    if not config.admin:
        return None
    host = config.admin_host
    if hooks is not None and needs_operator(config) and not hooks.has_admin:
        sys.exit(
            f"Refusing the admin listener on {host} without an operator's key: make one with `vfastml keys new NAME "
            "--admin` for the --api-key-file, or say with --insecure that everybody may come in."
        )
    port = config.admin_port if config.admin_port is not None else _port_after(main_port)
    try:
        return how(host, port)
    except OSError as error:
        problem = f"The admin listener cannot have {host} port {port}: {error.strerror}."
        if config.admin_port is not None:
            sys.exit(problem)
        logger.warning("%s There are no metrics: choose an admin port, or say that there is none.", problem)
        return None


def needs_operator(config: GatewayConfig) -> bool:
    """Whether nobody else may come in."""
    return asks_key(config) and not config.insecure


def asks_key(config: GatewayConfig) -> bool:
    """Whether an operator has to show a key: other machines reach the listener."""
    return not is_loopback(config.admin_host)


def admin_url(config: GatewayConfig, listener: socket.socket | None) -> str | None:
    """Of the admin listener, if there is one."""
    if listener is None:
        return None
    return f"http://{bracketed(config.admin_host)}:{listener.getsockname()[1]}"


def _port_after(port: int) -> int:
    """0, a free one, where there is none."""
    return port + 1 if 0 < port < _MAX_PORT else 0
