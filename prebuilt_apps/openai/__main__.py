"""`python -m prebuilt_apps.openai`: the gateway and a model server from one shell, as two processes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from prebuilt_apps.openai import api_server, model_server
from prebuilt_apps.openai.process_flags import add_process_flags, new_parser
from vfastml.engine.addresses import bracketed
from vfastml.utils.logging import configure_logging

logger = logging.getLogger("vfastml.prebuilt_apps.openai")

_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The last one comes when the terminal is closed: the processes, in groups of their own, would not get it."""


def build_parser() -> argparse.ArgumentParser:
    """The flags of both processes."""
    description = "Runs an OpenAI-compatible gateway and one model server. Ctrl-C stops both."
    parser = new_parser("python -m prebuilt_apps.openai", description)
    api_server.add_arguments(parser.add_argument_group("gateway"))
    model_server.add_arguments(parser.add_argument_group("model server"))
    add_process_flags(parser.add_argument_group("both"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Starts both, and stops both when one ends or a signal comes. Returns the exit status of the one that ended by
    itself, or 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.rpc_port == 0:
        parser.error("the gateway has to know the --rpc-port: 0 is for a model server alone")
    configure_logging(options.log_level)
    with _signals_noted() as signals, contextlib.ExitStack() as stack:
        processes = {}
        for name, command in _commands(arguments, options).items():
            # groups of their own: Ctrl-C reaches this process alone, which passes it on once
            processes[name] = subprocess.Popen(command, process_group=0)
            stack.callback(processes[name].kill)
        ended = _first_end(processes, signals)
        _stop(list(processes.values()), signals)
    if ended is None:
        return 0
    status = processes[ended].returncode
    return status if status >= 0 else 128 - status


def _first_end(processes: dict[str, subprocess.Popen[bytes]], signals: list[int]) -> str | None:
    """The process that ends by itself, or None when a signal comes first."""
    while not signals:
        for name, process in processes.items():
            if process.poll() is not None:
                logger.error("the %s has ended with status %d: stopping", name, process.returncode)
                return name
        time.sleep(_POLL_S)
    return None


def _commands(arguments: list[str], options: argparse.Namespace) -> dict[str, list[str]]:
    """What one parser does not know is the other's: both together know every flag."""
    _, for_model_server = api_server.build_parser().parse_known_args(arguments)
    _, for_gateway = model_server.build_parser().parse_known_args(arguments)
    both = ["--log-level", options.log_level, "--drain-timeout", str(options.drain_timeout)]
    both += ["--insecure"] if options.insecure else []
    endpoint = f"tcp://{bracketed(options.rpc_host)}:{options.rpc_port}"
    return {
        "model server": [sys.executable, "-m", model_server.__name__, *for_model_server, *both],
        "gateway": [sys.executable, "-m", api_server.__name__, *for_gateway, *both, "--model-server", endpoint],
    }


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """The stop signals that have come."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _: noted.append(number)) for number in _SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(processes: list[subprocess.Popen[bytes]], signals: list[int]) -> None:
    """Lets them drain; a second signal makes them stop at once."""
    asked = 0
    while any(process.poll() is None for process in processes):
        if asked < max(1, len(signals)):
            asked += 1
            for process in processes:
                process.terminate()
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
