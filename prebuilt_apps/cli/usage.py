"""`vfastml usage`: what each key has used, from the ledger that gateways write."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prebuilt_apps.cli.terminal import complain, shown, tolerate_any_text
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.extras import import_part
from prebuilt_apps.flags import FlagParser, Repeated

_PROG = "python -m prebuilt_apps.cli.usage"
_GROUPINGS = ("key", "model", "day")
_PIPE_WIDTH = 1000
"""Of a line where there is no terminal that says: wide enough for any name."""
_NUMBERS = ("requests", "unfinished", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Shows what has been used: requests, and tokens of prompts and answers. Gateways may run meanwhile.\n"
        "Days are those of UTC.",
    )
    add = parser.add_argument
    add("--ledger", metavar="FILE", help="the gateways' --ledger")
    add(
        "--by",
        action=Repeated,
        type=_grouping,
        metavar="{key,model,day}",
        help="one line for each; repeatable (default: key)",
    )
    add("--key", metavar="NAME", help="only of the key that is called so")
    add("--since", type=_day, metavar="DATE", help="from that day on, such as 2026-11-30")
    add("--until", type=_day, metavar="DATE", help="until the end of that day")
    add("--format", choices=tuple(_PRINTERS), default="table", help="how it is shown")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0, or 1 if the ledger cannot be read."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    tolerate_any_text()
    if not options.ledger:
        parser.error("say with --ledger which file the gateways write")
    if options.since and options.until and options.since > options.until:
        parser.error("--since is after --until")
    by = list(dict.fromkeys(options.by or ["key"]))
    books = import_part("vfastml.entrypoints.ledger.usage", extra="api", prog=prog)
    errors = import_part("vfastml.entrypoints.ledger.errors", extra="api", prog=prog)
    try:
        used = books.usage(options.ledger, by, key=options.key, since=options.since, until=options.until)
    except errors.LedgerError as error:
        complain(prog, str(error))
        return 1
    if not used:
        complain(prog, "nothing was used")
    _PRINTERS[options.format](by, [msgspec.to_builtins(each) for each in used])
    return 0


def _print_table(by: list[str], used: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, show_footer=len(used) > 1)
    for place, name in enumerate(by):
        is_folded = name == "model"  # its name may be long
        table.add_column(
            _head(name),
            "" if place else "SUM",
            no_wrap=not is_folded,
            overflow="fold" if is_folded else "ellipsis",
        )
    for name in _NUMBERS:
        total = sum(each[name] for each in used)
        table.add_column(_head(name), f"{total:,}", justify="right", no_wrap=True)
    for each in used:
        # Text: a name may hold what looks like rich's markup.
        names = [Text(shown(" ".join((each[name] or "-").split()))) for name in by]
        table.add_row(*names, *(f"{each[name]:,}" for name in _NUMBERS))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _print_json(by: list[str], used: list[dict[str, Any]]) -> None:
    lines = [{name: each[name] for name in (*by, *_NUMBERS)} for each in used]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(lines)).decode() + "\n")


def _print_csv(by: list[str], used: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*by, *_NUMBERS])
    writer.writerows([*(shown(each[name]) for name in by), *(each[name] for name in _NUMBERS)] for each in used)


_PRINTERS: dict[str, Callable[[list[str], list[dict[str, Any]]], None]] = {
    "table": _print_table,
    "json": _print_json,
    "csv": _print_csv,
}


def _head(name: str) -> str:
    return name.removesuffix("_tokens").upper()


def _grouping(text: str) -> str:
    if text not in _GROUPINGS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(_GROUPINGS)}")
    return text


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a day, such as 2026-11-30") from None


if __name__ == "__main__":
    sys.exit(main())
