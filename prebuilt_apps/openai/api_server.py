"""The OpenAI-compatible gateway: `python -m prebuilt_apps.openai.api_server`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from prebuilt_apps.openai.process_flags import add_process_flags, new_parser, port
from vfastml.entrypoints.api_server import FastMLServer
from vfastml.entrypoints.gateway_config import GatewayConfig

_DEFAULTS = GatewayConfig()


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The gateway's own flags; their defaults are GatewayConfig's."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port, default=8080, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--model-server",
        action="append",
        metavar="ENDPOINT",
        help=f"endpoint of a model server, may be repeated (default: {' '.join(_DEFAULTS.model_servers)})",
        default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="key that clients must send, may be repeated (default: none is asked for)",
        default=argparse.SUPPRESS,
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = new_parser(
        "python -m prebuilt_apps.openai.api_server",
        "OpenAI-compatible HTTP in front of one or more VFastML model servers.",
    )
    add_arguments(parser)
    add_process_flags(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM. Exit codes: 0 stopped by a signal, 1 could not start, 2 wrong usage."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        FastMLServer.configure(
            model_servers=getattr(options, "model_server", _DEFAULTS.model_servers),
            api_keys=getattr(options, "api_key", _DEFAULTS.api_keys),
            insecure=options.insecure,
            log_level=options.log_level,
            drain_timeout_s=options.drain_timeout,
        )
    except ValueError as error:
        parser.error(str(error))
    FastMLServer.run(options.host, options.port)


if __name__ == "__main__":
    main()
