"""`python -m prebuilt_apps.openai`: the gateway and a model server from one shell, as two processes."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from prebuilt_apps.openai import api_server, model_server
from prebuilt_apps.openai.process_flags import HelpWithDefaults, add_process_flags

_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def build_parser() -> argparse.ArgumentParser:
    """The flags of both processes."""
    parser = argparse.ArgumentParser(
        prog="python -m prebuilt_apps.openai",
        description="Runs an OpenAI-compatible gateway and one model server. Ctrl-C stops both.",
        formatter_class=HelpWithDefaults,
        allow_abbrev=False,
    )
    api_server.add_arguments(parser.add_argument_group("gateway"))
    model_server.add_arguments(parser.add_argument_group("model server"))
    add_process_flags(parser.add_argument_group("both"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Starts both, and stops both when one ends or a signal comes. Returns the exit status of the one that ended by
    itself, or 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(arguments)
    with _signals_noted() as signals:
        # groups of their own: Ctrl-C reaches this process alone, which passes it on once
        processes = [subprocess.Popen(command, process_group=0) for command in _commands(arguments, options)]
        try:
            while not signals and all(process.poll() is None for process in processes):
                time.sleep(_POLL_S)
            status = next((process.returncode for process in processes if process.returncode is not None), 0)
            _stop(processes, signals)
        finally:
            for process in processes:
                process.kill()
    return 0 if signals else status if status >= 0 else 128 - status


def _commands(arguments: list[str], options: argparse.Namespace) -> list[list[str]]:
    """What one parser does not know is the other's: both together know every flag."""
    _, for_model_server = api_server.build_parser().parse_known_args(arguments)
    _, for_gateway = model_server.build_parser().parse_known_args(arguments)
    both = ["--log-level", options.log_level, "--drain-timeout", str(options.drain_timeout)]
    both += ["--insecure"] if options.insecure else []
    endpoint = f"tcp://{options.rpc_host}:{options.rpc_port}"
    return [
        [sys.executable, "-m", model_server.__name__, *for_model_server, *both],
        [sys.executable, "-m", api_server.__name__, *for_gateway, *both, "--model-server", endpoint],
    ]


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
