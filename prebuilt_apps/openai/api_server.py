"""The OpenAI-compatible gateway: `python -m prebuilt_apps.openai.api_server`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from prebuilt_apps import flag_types
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.extras import import_part
from prebuilt_apps.flags import FlagParser, Repeated, add_max_step_flag, add_process_flags, add_wire_keys_flag
from prebuilt_apps.variables import variable_of
from vfastml.entrypoints.keys.key_file import read_keys

_PROG = "python -m prebuilt_apps.openai.api_server"
_WORKER = (sys.executable, "-m", "prebuilt_apps.openai.gateway_worker")
_TRACE_SAMPLE = 0.01
"""GatewayConfig's, which needs the packages of the gateway."""


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The gateway's own flags. None stands for GatewayConfig's default: it comes with packages that --help and a
    machine with model servers alone can do without."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=flag_types.port, default=8080, help="port to listen on; 0 takes a free one")
    add(
        "--workers",
        type=flag_types.positive,
        default=1,
        metavar="N",
        help="gateway processes on that port. Each is one of its own: /load, health and the bound on held requests are "
        "those of the process that answers",
    )
    add(
        "--model-server",
        action=Repeated,
        metavar="ENDPOINT",
        help="where a model server listens, tcp://HOST:PORT or ipc://PATH; repeatable (default: tcp://127.0.0.1:6500)",
    )
    add_key_flags(parser)
    add(
        "--cors-origin",
        action=Repeated,
        metavar="ORIGIN",
        help="web pages that may call from a browser, such as https://app.example, or *; repeatable",
    )
    add("--root-path", metavar="PATH", help="prefix under which a proxy publishes the gateway, such as /llm")
    add(
        "--access-log",
        choices=("all", "errors", "off"),
        help="requests to log: all, those that failed, or none (default: errors)",
    )
    add_admin_flags(parser)
    add_ledger_flags(parser)
    add_bound_flags(parser)
    add_time_flags(parser)
    add_trace_flags(parser)


def add_key_flags(parser: argparse._ActionsContainer) -> None:
    """Where the keys come from."""
    add = parser.add_argument
    add(
        "--api-key",
        action=Repeated,
        type=flag_types.api_key,
        metavar="KEY",
        help="key that clients must send; repeatable. Other users of the machine see it in the list of processes: "
        "the variable or --api-key-file is better (default: none is asked for)",
    )
    add(
        "--api-key-file",
        metavar="FILE",
        help="file of keys: FILE.toml as `vfastml keys` writes it, with names and limits, or else one key in a line "
        "(# begins a comment). It is read again when it has changed",
    )


def add_admin_flags(parser: argparse._ActionsContainer) -> None:
    """The listener for operators."""
    add = parser.add_argument
    add(
        "--admin-host",
        metavar="HOST",
        help="address of the listener for operators, with /metrics, /load and /keys (default: 127.0.0.1)",
    )
    add(
        "--admin-port",
        type=flag_types.port,
        metavar="PORT",
        help="port of that listener; 0 takes a free one (default: the one after --port, if it is free)",
    )
    add("--no-admin", action="store_true", help="no such listener, and nothing is measured")


def add_ledger_flags(parser: argparse._ActionsContainer) -> None:
    """Where it is written down who has used how much."""
    add = parser.add_argument
    add("--ledger", metavar="FILE", help="SQLite file of what each key has used: see `vfastml usage` (default: none)")
    add(
        "--ledger-keep-days",
        type=flag_types.positive,
        metavar="DAYS",
        help="how long its rows of single requests are kept; sums by day, key and model are for ever (default: 90)",
    )


def add_bound_flags(parser: argparse._ActionsContainer) -> None:
    """How much a gateway takes at a time."""
    add = parser.add_argument
    add(
        "--max-open",
        type=flag_types.positive,
        metavar="N",
        help="requests open at a time, in each gateway process; what is more is refused with 429 (default: 4096)",
    )
    add(
        "--max-open-per-key",
        type=flag_types.not_negative,
        metavar="N",
        help="of these, with one API key; 0 is no bound (default: 0)",
    )


def add_time_flags(parser: argparse._ActionsContainer) -> None:
    """How long a gateway waits."""
    add = parser.add_argument
    add(
        "--request-timeout",
        type=flag_types.seconds,
        metavar="SECONDS",
        help="for a request to be answered in full; the header x-request-timeout can ask for less; 0 is no bound "
        "(default: 0)",
    )
    add(
        "--body-timeout",
        type=flag_types.seconds,
        metavar="SECONDS",
        help="how long a client may be silent in the middle of a body (default: 20)",
    )
    add(
        "--drain-delay",
        type=flag_types.seconds,
        metavar="SECONDS",
        help="how long new requests are still taken after SIGTERM, for load balancers to notice; then --drain-timeout "
        "begins (default: 0)",
    )


def add_trace_flags(parser: argparse._ActionsContainer) -> None:
    """Where traces go."""
    add = parser.add_argument
    add(
        "--trace-endpoint",
        metavar="URL",
        help="OpenTelemetry collector that gets traces over HTTP, such as http://127.0.0.1:4318; what it wants for "
        "headers is in OTEL_EXPORTER_OTLP_HEADERS (default: none)",
    )
    add("--trace-file", metavar="FILE", help="file that gets each span of a trace as a line of JSON (default: none)")
    add(
        "--trace-sample",
        type=flag_types.share,
        metavar="SHARE",
        help=f"of requests that are traced, 0 to 1, where the client has not decided it (default: {_TRACE_SAMPLE})",
    )


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line."""
    parser = FlagParser(prog, "OpenAI-compatible HTTP in front of one or more VFastML model servers.")
    add_arguments(parser)
    add_wire_keys_flag(parser)
    add_max_step_flag(parser)
    add_process_flags(parser)
    return parser


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of GatewayConfig that were asked for. Raises ValueError with a sentence for the operator."""
    if options.trace_sample not in (None, _TRACE_SAMPLE) and not (options.trace_endpoint or options.trace_file):
        raise ValueError("--trace-sample says nothing without --trace-endpoint or --trace-file")
    asked = {
        "model_servers": options.model_server,
        "api_keys": options.api_key,
        "api_key_file": _checked_key_file(options),
        "cors_origins": options.cors_origin,
        "root_path": options.root_path,
        "access_log": options.access_log,
        "max_step_s": options.max_step,
        "max_open": options.max_open,
        "max_open_per_key": options.max_open_per_key,
        "ledger": options.ledger,
        "ledger_keep_days": options.ledger_keep_days,
        "wire_keys": options.wire_keys,
        "insecure": options.insecure,
        "admin": not options.no_admin,
        "admin_host": options.admin_host,
        "admin_port": options.admin_port,
        "log_level": options.log_level,
        "log_format": options.log_format,
        "trace_endpoint": options.trace_endpoint,
        "trace_file": options.trace_file,
        "trace_sample": options.trace_sample,
        "request_timeout_s": options.request_timeout,
        "body_timeout_s": options.body_timeout,
        "drain_delay_s": options.drain_delay,
        "drain_timeout_s": options.drain_timeout,
    }
    return {name: value for name, value in asked.items() if value is not None}


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Serve until SIGTERM. Returns the exit status, or leaves by SystemExit with it: 0 stopped by a signal, 1 could not
    start, 2 wrong usage."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    config_class = import_part("vfastml.entrypoints.gateway_config", extra="api", prog=prog).GatewayConfig
    try:
        settings = settings_of(options)
        config = config_class(**settings)
        check_traces(config, prog)
    except ValueError as error:
        parser.error(str(error))
    if options.workers > 1:
        run_workers = import_part("vfastml.entrypoints.supervisor", extra="api", prog=prog).run_workers
        return int(run_workers(_WORKER, options.workers, prog, config, options.host, options.port))
    gateway = import_part("vfastml.entrypoints.api_server", extra="api", prog=prog).FastMLServer
    gateway.configure(**settings)
    gateway.run(options.host, options.port)
    return 0


def check_traces(config: Any, prog: str) -> None:
    """Leaves by SystemExit 1 where the packages are missing that traces need. Raises ValueError with a sentence for the
    operator where they cannot be kept."""
    if config.is_traced:
        import_part("vfastml.entrypoints.tracing.exporters", extra="trace", prog=prog).check(config)


def _checked_key_file(options: argparse.Namespace) -> str | None:
    """Its name: gateways read it themselves, again and again. Raises ValueError if they could not, or nobody could
    come in."""
    if options.api_key is None and options.api_key_file is None:
        _check_none_went_missing()
    file: str | None = options.api_key_file
    try:
        # What there is to tell of it the gateway's log tells.
        if file is not None and not read_keys(file, lambda _: None) and not options.api_key:
            raise ValueError(f"the key file {file} has no key in it")
    except ValueError as error:
        raise ValueError(f"--api-key-file: {error}") from error
    return file


def _check_none_went_missing() -> None:
    """A secret that did not arrive must not open the door."""
    for variable, what in ((variable_of("api_key"), "a key"), (variable_of("api_key_file"), "a file")):
        if os.environ.get(variable) == "":
            raise ValueError(f"{variable} is empty: give it {what}, or unset it to ask for no key")


if __name__ == "__main__":
    sys.exit(main())
