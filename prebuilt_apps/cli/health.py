"""`vfastml health`: whether a service is ready, for the health checks of containers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from prebuilt_apps import flag_types
from prebuilt_apps.cli.service_client import ServiceClient, add_url_flag, default_url, port_here
from prebuilt_apps.cli.service_error import NobodyAnswersError, ServiceError
from prebuilt_apps.cli.terminal import complain, show
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser, add_max_step_flag, add_wire_keys_flag
from prebuilt_apps.variables import variable_of
from vfastml.engine.discovery import static_endpoints
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.server_table import ServerState, ServerView
from vfastml.engine.wire_keys import WireKeyError

_PROG = "python -m prebuilt_apps.cli.health"
_TIMEOUT_S = 5.0
_ADVICE = "Say with --url where a gateway answers, or with --model-server where a model server does."


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line."""
    parser = FlagParser(prog, "Exits with 0 if the service is ready, else with 1 and one line that says why.")
    which = parser.add_mutually_exclusive_group()
    add_url_flag(which)
    own = _own_endpoint()
    which.add_argument(
        "--model-server",
        nargs="?",
        const=own,
        type=_endpoint,
        metavar="ENDPOINT",
        # No variable: a gateway has one of that name for its servers, and is itself to be asked here.
        default=argparse.SUPPRESS,
        help=f"ask a model server instead of a gateway (without ENDPOINT: {own})",
    )
    parser.add_argument(
        "--timeout", type=flag_types.seconds, default=_TIMEOUT_S, metavar="SECONDS", help="for the answer"
    )
    add_wire_keys_flag(parser)
    add_max_step_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0 or 1."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        if endpoint := getattr(options, "model_server", None):
            with _no_log_lines():
                asyncio.run(_check_model_server(endpoint, options.timeout, options.max_step, options.wire_keys))
        else:
            _check_gateway(options.url or default_url(), options.timeout)
    except NobodyAnswersError as error:
        complain(prog, f"{error} {_ADVICE}")
        return 1
    except ServiceError as error:
        complain(prog, str(error))
        return 1
    show("ready\n")
    return 0


def _check_gateway(url: str, timeout_s: float) -> None:
    """Raises ServiceError if it is not ready."""
    with closing(ServiceClient(url, silence_s=timeout_s)) as client:
        status, body = client.get("/readyz")
        if status == 200:
            return
        if status != 503:
            raise ServiceError(f"{url} answers with HTTP status {status}: no gateway of VFastML.")
        if _field(body, "status") == "draining":
            raise ServiceError("not ready: the gateway is draining")
        _, startup = client.get("/startupz")
    if _field(startup, "status") == "starting":
        raise ServiceError(f"not ready: {_phase(_field(startup, 'phase'), _field(startup, 'progress'))}")
    raise ServiceError("not ready: a model has no live model server")


async def _check_model_server(endpoint: str, timeout_s: float, max_step_s: float, wire_keys: str | None) -> None:
    """Raises ServiceError if it is not ready. The keys of a gateway will do, and those of the model server itself."""
    engine = DispatchEngine([endpoint], max_step_age_s=max_step_s, wire_keys=wire_keys)
    try:
        await engine.start()
    except WireKeyError as error:
        raise ServiceError(str(error)) from error
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.wait_ready(), timeout_s)
        [server] = engine.servers()
    finally:
        await engine.close()
    if reason := _why_not_ready(server, max_step_s):
        raise ServiceError(reason)


@contextlib.contextmanager
def _no_log_lines() -> Iterator[None]:
    """The engine tells of lost connections, and one line is to say why."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def _why_not_ready(server: ServerView, max_step_s: float) -> str | None:
    match server.state:
        case ServerState.LIVE if server.step_age_s <= max_step_s:
            return None
        case ServerState.LIVE | ServerState.HUNG:
            return f"not ready: the model server hangs in a step since {server.step_age_s:.0f} s"
        case ServerState.LOADING:
            return f"not ready: {_phase(server.phase, server.progress)}"
        case ServerState.UNSEEN | ServerState.LOST if server.phase:
            return f"not ready: {server.phase} ({server.endpoint})"
        case ServerState.UNSEEN | ServerState.LOST:
            return f"no model server answers at {server.endpoint}: say with --model-server where one does"
    return f"not ready: the model server is {server.state}"


def _own_endpoint() -> str:
    """Of the model server that the environment here describes."""
    path = os.environ.get(variable_of("rpc_ipc"))
    return f"ipc://{path}" if path else f"tcp://127.0.0.1:{port_here('rpc_port', 6500)}"


def _endpoint(text: str) -> str:
    try:
        return static_endpoints([text])[0]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _phase(phase: Any, progress: Any) -> str:
    share = f" ({progress:.0%})" if isinstance(progress, float | int) else ""
    return f"{phase or 'starting'}{share}"


def _field(body: Any, name: str) -> Any:
    return body.get(name) if isinstance(body, dict) else None


if __name__ == "__main__":
    sys.exit(main())
