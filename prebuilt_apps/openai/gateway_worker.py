"""One of the gateways of `--workers`: its supervisor starts it, and tells it on its stdin what to serve."""

from __future__ import annotations

import socket
import sys

from prebuilt_apps.extras import import_part
from vfastml.entrypoints.supervisor_line import SupervisorLine


def main() -> None:
    """Serve until SIGTERM or the end of the supervisor. Exit codes: 0 stopped, 1 could not start."""
    try:
        line = SupervisorLine(socket.socket(fileno=sys.stdin.fileno()))
    except OSError:
        sys.exit("This is a part of a gateway with --workers: start that.")
    order = line.order()
    if order is None:
        sys.exit("The supervisor ended before this worker began.")
    gateway = import_part("vfastml.entrypoints.api_server", extra="api", prog=order.prog).Gateway(order.config)
    gateway.run_worker(order.host, order.port, line, order.shared_balances)


if __name__ == "__main__":
    main()
