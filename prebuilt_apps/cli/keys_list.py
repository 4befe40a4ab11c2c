"""`vfastml keys list`: whose keys there are, and what each may do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prebuilt_apps.cli.key_flags import add_file_flag
from prebuilt_apps.cli.terminal import complain, shown
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.key_file import KeyFileError, read_keys

SUMMARY = "list the keys of a file, and what each may do"
_HEADS = ("NAME", "ADMIN", "WEIGHT", "REQ/MIN", "TOK/MIN", "OPEN", "QUOTA", "MODELS")
_NUMBERS = ("WEIGHT", "REQ/MIN", "TOK/MIN", "OPEN")
_FOLDED = ("QUOTA", "MODELS")
"""What may take several lines."""


def build_parser(prog: str) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Lists the keys of a key file, with the limits that hold for each.\n"
        "In a pipe: the same, head line and all, with tabs between.",
    )
    add_file_flag(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Returns 0, or 1 with one line if the file cannot be read."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        keys = read_keys(options.api_key_file, partial(complain, prog))
    except KeyFileError as error:
        complain(prog, str(error))
        return 1
    if sys.stdout.isatty():
        _print_table(keys)
    else:
        sys.stdout.writelines("\t".join(cells) + "\n" for cells in (_HEADS, *map(_cells, keys)))
    return 0


def _print_table(keys: Iterable[ApiKey]) -> None:
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(
            head,
            justify="right" if head in _NUMBERS else "left",
            no_wrap=head not in _FOLDED,
            overflow="fold" if head in _FOLDED else "ellipsis",
        )
    for key in keys:
        # Text: a model's name may hold what looks like rich's markup.
        table.add_row(*map(Text, _cells(key)))
    Console().print(table)


def _cells(key: ApiKey) -> list[str]:
    limits = (key.requests_per_minute, key.tokens_per_minute, key.max_open)
    return [
        key.name,
        "yes" if key.admin else "no",
        f"{key.weight:g}",
        *("-" if limit is None else str(limit) for limit in limits),
        "-" if key.quota_tokens is None else f"{key.quota_tokens} per {key.quota_per}".replace("per ever", "in all"),
        "all" if key.models is None else shown(" ".join(", ".join(key.models).split())),
    ]
