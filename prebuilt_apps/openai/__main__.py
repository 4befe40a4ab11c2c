"""`python -m prebuilt_apps.openai`: the gateway and a model server from one shell, as two processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.extras import import_part
from prebuilt_apps.flags import FlagParser, Repeated, add_max_step_flag, add_process_flags, add_wire_keys_flag
from prebuilt_apps.openai import api_server, model_server
from prebuilt_apps.openai.child_process import ChildProcess
from prebuilt_apps.openai.supervisor import Supervisor
from prebuilt_apps.variables import OTHERS, PREFIX, variable_of
from vfastml.engine.addresses import bracketed, is_loopback
from vfastml.engine.discovery import ipc_endpoint
from vfastml.utils.logging import configure_logging

_PROG = "python -m prebuilt_apps.openai"


def build_parser(prog: str = _PROG) -> FlagParser:
    """The flags of both processes."""
    parser = FlagParser(prog, "Runs an OpenAI-compatible gateway and one model server. Ctrl-C stops both.")
    api_server.add_arguments(parser.add_argument_group("gateway"))
    model_server.add_arguments(parser.add_argument_group("model server"))
    both = parser.add_argument_group("both")
    add_wire_keys_flag(both)
    add_max_step_flag(both)
    add_process_flags(both)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Starts both and keeps them running until a signal comes. Returns the exit status: see Supervisor. What can be
    found wrong before they start leaves by SystemExit, with one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(prog)
    options = parser.parse(arguments)
    _settle(parser, options)
    warn_of_unknown_variables(parser)
    configure_logging(options.log_level, options.log_format, "supervisor")
    grace_s = (options.drain_delay or 0.0) + options.drain_timeout
    return Supervisor(*_processes(arguments, options), grace_s).run()


def _settle(parser: FlagParser, options: argparse.Namespace) -> None:
    """Adds the model server to those of the gateway, and checks what else would let a process fail at its start."""
    own = _own_endpoint(parser, options)
    options.model_server = list(dict.fromkeys([*(options.model_server or ()), own]))
    # The processes would find out by themselves that they cannot start, one after the other.
    needs = ("starlette",)
    config = import_part("vfastml.entrypoints.gateway_config", extra="api", prog=parser.prog, needs=needs).GatewayConfig
    try:
        settings = config(**api_server.settings_of(options))
        api_server.check_traces(settings, parser.prog)
        model_server.load_kwargs(options)
    except ValueError as error:
        parser.error(str(error))
    _check_listens(parser.prog, "", options.host, options.port, is_guarded=settings.asks_for_keys or options.insecure)
    if options.rpc_ipc is None:
        _check_port(parser.prog, "rpc-", options.rpc_host, options.rpc_port)


def _own_endpoint(parser: FlagParser, options: argparse.Namespace) -> str:
    """Where the model server is to listen, if it may."""
    if options.rpc_ipc is not None:
        try:
            return ipc_endpoint(options.rpc_ipc)
        except ValueError as error:
            parser.error(str(error))
    if options.rpc_port == 0:
        parser.error("the gateway has to know the --rpc-port: 0 is for a model server alone")
    is_guarded = options.wire_keys is not None or options.insecure
    _check_reach(parser.prog, "rpc-", options.rpc_host, is_guarded=is_guarded, keys="--wire-keys")
    return f"tcp://{bracketed(options.rpc_host)}:{options.rpc_port}"


def _check_listens(prog: str, kind: str, host: str, port: int, *, is_guarded: bool) -> None:
    """Leaves by SystemExit 1 where the process that is to listen there would."""
    _check_reach(prog, kind, host, is_guarded=is_guarded, keys="--api-key-file")
    _check_port(prog, kind, host, port)


def _check_reach(prog: str, kind: str, host: str, *, is_guarded: bool, keys: str) -> None:
    if not (is_loopback(host) or is_guarded):
        sys.exit(
            f"{prog}: --{kind}host {host} is open to other machines: give it {keys}, or say with --insecure that they "
            "may use it"
        )


def _check_port(prog: str, kind: str, host: str, port: int) -> None:
    bind = import_part("vfastml.entrypoints.listening", extra="api", prog=prog).bind
    try:
        bind(host, port).close()
    except OSError as error:
        reason = error.strerror or str(error)
        sys.exit(f"{prog}: cannot listen on {host} port {port}: {reason}; choose another --{kind}host or --{kind}port")


def _processes(arguments: list[str], options: argparse.Namespace) -> tuple[ChildProcess, ChildProcess]:
    """Gateway and model server, not started yet. What one parser does not know is the other's: both together know every
    flag. Keys go to the gateway alone, and by its environment, which other users cannot see."""
    gateway, model = api_server.build_parser(), model_server.build_parser()
    _, for_model_server = gateway.parse_known_args(arguments)
    _, for_gateway = model.parse_known_args(arguments)
    _, for_gateway = _settled_here().parse_known_args(for_gateway)
    both = ["--log-level", options.log_level, "--log-format", options.log_format]
    both += ["--drain-timeout", str(options.drain_timeout)]
    both += ["--max-step", str(options.max_step)]
    both += ["--insecure"] if options.insecure else []
    wire_keys = [] if options.wire_keys is None else ["--wire-keys", options.wire_keys]
    own_keys = wire_keys if options.rpc_ipc is None else []  # a socket file needs none: they are for other servers
    servers = [text for endpoint in options.model_server for text in ("--model-server", endpoint)]
    keys = {variable_of("api_key"): ",".join(options.api_key)} if options.api_key else {}
    return (
        ChildProcess(
            "gateway",
            [sys.executable, "-m", api_server.__name__, *for_gateway, *both, *wire_keys, *servers],
            {**_environment_of(gateway), **keys},
        ),
        ChildProcess(
            "model server",
            [sys.executable, "-m", model_server.__name__, *for_model_server, *both, *own_keys],
            _environment_of(model),
            model_server.READY_FLAG,
        ),
    )


def _settled_here() -> FlagParser:
    """The gateway's flags that are passed on in another form than they were given."""
    parser = FlagParser(_PROG, "")
    parser.add_argument("--api-key", action=Repeated)
    parser.add_argument("--model-server", action=Repeated)
    return parser


def _environment_of(parser: FlagParser) -> dict[str, str]:
    """This process's environment without variables of ours that are not that process's, or come as flags."""
    own = OTHERS.union(parser.variables()) - {variable_of("wire_keys")}
    return {name: value for name, value in os.environ.items() if name in own or not name.startswith(PREFIX)}


if __name__ == "__main__":
    sys.exit(main())
