"""`vfastml top`, also `python -m prebuilt_apps.cli.top`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from prebuilt_apps import flag_types
from prebuilt_apps.cli.service_client import add_key_flag, key_of, port_here
from prebuilt_apps.cli.service_error import NobodyAnswersError, ServiceError
from prebuilt_apps.cli.terminal import complain, is_conversation, tolerate_any_text
from prebuilt_apps.cli.top.admin_client import AdminClient
from prebuilt_apps.cli.top.once import print_json, print_picture
from prebuilt_apps.cli.top.rates import Window
from prebuilt_apps.cli.top.view import View, view_of
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser

_PROG = "python -m prebuilt_apps.cli.top"


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Shows what a service does: its model servers, requests, tokens, latencies. Where stdout is no terminal: once.",
    )
    # Not VFASTML_URL, which says where users of the service go.
    parser.add_argument(
        "--admin-url",
        "--url",
        type=flag_types.admin_url,
        metavar="URL",
        help=f"where the gateway's admin listener answers (default: {default_url()})",
    )
    add_key_flag(parser)
    parser.add_argument(
        "--interval", type=flag_types.time_limit, default=1.0, metavar="SECONDS", help="from one look to the next"
    )
    # Without variables: both are about one call.
    parser.add_argument(
        "--once",
        action="store_true",
        default=argparse.SUPPRESS,
        help="look twice, an interval apart, print one picture and exit",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default=argparse.SUPPRESS,
        help="of that picture; json: one line with all figures, null where none is known; implies --once",
    )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0, or 1 if there is no admin listener."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    url = options.admin_url or default_url()
    try:
        if _is_live(options):
            asyncio.run(_watch(url, key_of(options), options.interval))
        else:
            tolerate_any_text()
            view = asyncio.run(_look(url, key_of(options), options.interval))
            (print_json if "format" in options and options.format == "json" else print_picture)(view)
    except NobodyAnswersError as error:
        complain(prog, f"{error} Say with --admin-url where a gateway's admin listener answers.")
        return 1
    except ServiceError as error:
        complain(prog, str(error))
        return 1
    return 0


def default_url() -> str:
    """Where the admin listener of a gateway with this environment answers."""
    return f"http://127.0.0.1:{port_here('admin_port', port_here('port', 8080) + 1)}"


def _is_live(options: argparse.Namespace) -> bool:
    return not ("once" in options or "format" in options) and is_conversation() and os.environ.get("TERM") != "dumb"


async def _watch(url: str, api_key: str | None, interval_s: float) -> None:
    async with AdminClient(url, api_key) as client:
        # Before the screen is taken: what is wrong from the beginning is better said in a line.
        first = await client.snapshot()
        app = import_module("prebuilt_apps.cli.top.app").TopApp(client, first, interval_s)
        await app.run_async()


async def _look(url: str, api_key: str | None, interval_s: float) -> View:
    window = Window(interval_s + 60.0)
    async with AdminClient(url, api_key) as client:
        window.add(await client.snapshot())
        await asyncio.sleep(interval_s)
        window.add(await client.snapshot())
    return view_of(url, window)


if __name__ == "__main__":
    sys.exit(main())
