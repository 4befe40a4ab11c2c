"""Several slow_gateway on one port, `slow_workers DRAIN_TIMEOUT COUNT`, or one of them, without arguments."""

from __future__ import annotations

import socket
import sys

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.entrypoints.slow_gateway import speak_slowly
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.supervisor import run_workers
from vfastml.entrypoints.supervisor_line import SupervisorLine

COMMAND = [sys.executable, "-m", "tests.entrypoints.slow_workers"]


def main() -> None:
    if len(sys.argv) > 1:
        config = GatewayConfig(drain_timeout_s=float(sys.argv[1]))
        sys.exit(run_workers(COMMAND, int(sys.argv[2]), "slow_workers", config, "localhost", 0))
    line = SupervisorLine(socket.socket(fileno=0))
    order = line.order()
    assert order is not None
    Gateway(order.config, FakeDispatchEngine(speak_slowly)).run_worker(order.host, order.port, line)


if __name__ == "__main__":
    main()
