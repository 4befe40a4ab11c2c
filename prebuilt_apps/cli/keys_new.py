"""`vfastml keys new NAME`: a key that nobody can guess. Only its digest is kept."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from prebuilt_apps import flag_types
from prebuilt_apps.cli.key_document import with_key
from prebuilt_apps.cli.key_file_editor import change_key_file
from prebuilt_apps.cli.key_flags import add_file_flag
from prebuilt_apps.cli.terminal import complain
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.entrypoints.keys.api_key import ApiKey, digest_of
from vfastml.entrypoints.keys.key_file import KeyFileError
from vfastml.entrypoints.keys.quota import PERIODS

SUMMARY = "make a key and print it, once"
_NUM_BYTES = 32


def build_parser(prog: str) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Makes an API key, prints it on stdout, and puts its digest into the key file, which is made if need be.\n"
        "The key itself is kept nowhere: who loses it gets a new one.",
    )
    parser.add_argument("name", metavar="NAME", help="1 to 64 letters, digits, '.', '_', '-'")
    add_file_flag(parser)
    parser.add_argument("--admin", action="store_true", default=argparse.SUPPRESS, help="it opens the admin listener")
    _add_limit(parser, "--weight", flag_types.weight, "of its share of a busy model, beside others' (default: 1)")
    _add_limit(parser, "--models", flag_types.names, "that it may use, with commas between (default: all)", "A,B")
    _add_limit(parser, "--requests-per-minute", flag_types.positive, "that it may send (default: no bound)")
    _add_limit(parser, "--tokens-per-minute", flag_types.positive, "of prompts and answers (default: no bound)")
    _add_limit(parser, "--max-open", flag_types.positive, "requests at a time (default: the gateway's own bound)")
    _add_limit(
        parser,
        "--quota-tokens",
        flag_types.positive,
        "of prompts and answers in each --quota-per; needs the gateways' --ledger",
    )
    parser.add_argument(
        "--quota-per", choices=PERIODS, default=argparse.SUPPRESS, help="a day or month of UTC, or ever"
    )
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Returns 0, or 1 with one line if there is no such key now."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    key = f"vfm-{secrets.token_urlsafe(_NUM_BYTES)}"
    entry = _entry(parser, options, digest_of(key.encode()).hex())
    try:
        change_key_file(options.api_key_file, partial(with_key, entry=entry), may_be_new=True)
    except KeyFileError as error:
        complain(prog, str(error))
        return 1
    complain(prog, f"the key of {options.name!r} is shown this once; {options.api_key_file} has its digest")
    if "quota_tokens" in entry:
        complain(prog, "its quota needs --ledger of each gateway: without it none takes the file")
    sys.stdout.write(f"{key}\n")
    sys.stdout.flush()
    return 0


def _add_limit(parser: FlagParser, flag: str, kind: Any, text: str, metavar: str = "N") -> None:
    # No variable: what is in the environment of a service is not meant for each new key.
    parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _entry(parser: FlagParser, options: argparse.Namespace, sha256: str) -> dict[str, Any]:
    """What the file will say of it. A mistake leaves by SystemExit 2."""
    said = {name: value for name, value in vars(options).items() if name not in ("name", "api_key_file")}
    entry = {"name": options.name, "sha256": sha256, **said}
    try:
        ApiKey(**{**entry, **({"models": tuple(entry["models"])} if "models" in entry else {})})
    except ValueError as error:
        parser.error(str(error))
    return entry
