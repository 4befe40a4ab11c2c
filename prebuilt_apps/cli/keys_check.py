"""`vfastml keys check`: whether a gateway would take a key file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prebuilt_apps.cli.key_flags import NO_START, add_file_flag
from prebuilt_apps.cli.terminal import complain
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.entrypoints.keys.key_file import KeyFileError, read_keys

SUMMARY = "say whether a key file is right"


def build_parser(prog: str) -> FlagParser:
    """The command line."""
    parser = FlagParser(prog, "Says whether a gateway would take the key file, and if not, why.")
    add_file_flag(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Returns 0, or 1 with one line that says what is wrong."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        count = len(read_keys(options.api_key_file, partial(complain, prog)))
    except KeyFileError as error:
        complain(prog, str(error))
        return 1
    if not count:
        complain(prog, f"{options.api_key_file} has no key: {NO_START}")
        return 1
    complain(prog, f"{options.api_key_file} is right: it has {count} key{'' if count == 1 else 's'}")
    return 0
