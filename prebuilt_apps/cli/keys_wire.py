"""`vfastml keys wire DIR`: the folders of keys with which gateways and model servers know each other on a network."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from prebuilt_apps.cli.terminal import complain
from prebuilt_apps.cli.wire_folders import WireFolders
from prebuilt_apps.flags import FlagParser
from vfastml.engine.wire_keys import WireKeyError

SUMMARY = "make folders of keys for gateways and model servers on different machines"

_PROG = "python -m prebuilt_apps.cli.keys_wire"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ONLY = "main"


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line. No flag has a variable: what is made or revoked is said in so many words."""
    parser = FlagParser(
        prog,
        "Makes keys for the wire: a folder for a model server and one for each gateway, for --wire-keys there. What\n"
        "exists is kept, and each gateway may connect to the model server afterwards.",
        epilog="A gateway that connects to model servers with different keys takes for each the server-NAME.key whose "
        "NAME is\nthe host of the endpoint, or HOST_PORT.",
    )
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="where the folders are; made if there is none")
    name = "name of the model server, best its host"
    add("--server", type=_name, metavar="NAME", default=argparse.SUPPRESS, help=f"{name} (default: {_ONLY})")
    gateway = "name of a gateway; repeatable"
    add(
        "--gateway",
        action="append",
        type=_name,
        metavar="NAME",
        default=argparse.SUPPRESS,
        help=f"{gateway} (default: {_ONLY})",
    )
    revoke = "take this gateway off every model server's list here, and delete its key"
    add("--revoke", type=_name, metavar="NAME", default=argparse.SUPPRESS, help=revoke)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0, or 1 with one line if a file cannot be read or written."""
    parser = build_parser(prog)
    options = vars(parser.parse(argv))
    folders = WireFolders(options["folder"])
    if "revoke" in options and ("server" in options or "gateway" in options):
        parser.error("--revoke goes without --server and --gateway")
    try:
        lines = (
            folders.revoke(options["revoke"])
            if "revoke" in options
            else folders.make(options.get("server", _ONLY), options.get("gateway", [_ONLY]))
        )
    except WireKeyError as error:
        complain(prog, str(error))
        return 1
    except OSError as error:
        complain(prog, f"{error.filename}: {error.strerror}")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "a name has letters, digits, '.', '_' and '-' and begins with a letter or a digit"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
