"""`vfastml keys revoke NAME`: takes a key away."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prebuilt_apps.cli.key_document import without_key
from prebuilt_apps.cli.key_file_editor import change_key_file
from prebuilt_apps.cli.key_flags import NO_START, add_file_flag
from prebuilt_apps.cli.terminal import complain
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.entrypoints.keys.key_file import KeyFileError, parse_toml

SUMMARY = "take a key away; what it has open ends"


def build_parser(prog: str) -> FlagParser:
    """The command line."""
    parser = FlagParser(prog, "Takes an API key out of the key file. Running gateways end what it has open.")
    parser.add_argument("name", metavar="NAME", help="of the key")
    add_file_flag(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Returns 0, or 1 with one line if nothing was revoked."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        text = change_key_file(options.api_key_file, partial(without_key, name=options.name), may_be_new=False)
    except KeyError:
        complain(prog, f"{options.api_key_file} has no key with the name {options.name!r}")
        return 1
    except KeyFileError as error:
        complain(prog, str(error))
        return 1
    complain(prog, f"the key of {options.name!r} is revoked")
    if not parse_toml(text):
        complain(prog, f"{options.api_key_file} has no key now: it lets nobody in, and {NO_START}")
    return 0
