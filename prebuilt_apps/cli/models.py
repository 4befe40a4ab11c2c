"""`vfastml models`: what can be served from this machine, and what a service serves now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from prebuilt_apps.cli import models_fetch
from prebuilt_apps.cli.service_client import ServiceClient, add_service_flags, default_url, key_of
from prebuilt_apps.cli.service_error import NobodyAnswersError, ServiceError
from prebuilt_apps.cli.terminal import complain, shown, tolerate_any_text
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.model_store.listing import ListedModel, stored_models

_PROG = "python -m prebuilt_apps.cli.models"
_HEADS = ("MODEL", "SOURCE", "STATE", "SIZE")
_PATIENCE_S = 5.0


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line of the list."""
    parser = FlagParser(
        prog,
        "Lists the models that can be served from this machine, and those that a service serves.\n"
        "In a pipe: lines of model, source, state and bytes, with tabs between.",
        epilog=f"`{prog} fetch URI` downloads a model ahead of time.",
    )
    add_service_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0, or 1 if the service that was asked for could not say what it serves."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["fetch"]:
        return models_fetch.main(arguments[1:], f"{prog} fetch")
    parser = build_parser(prog)
    options = parser.parse(arguments)
    warn_of_unknown_variables(parser)
    tolerate_any_text()
    served: list[ListedModel] = []
    status = 0
    try:
        served = _served_models(options)
    except ServiceError as error:
        complain(prog, str(error))
        status = 1
    _print([*stored_models(), *served])
    return status


def _served_models(options: argparse.Namespace) -> list[ListedModel]:
    url = options.url or default_url()
    with closing(ServiceClient(url, key_of(options), silence_s=_PATIENCE_S)) as client:
        try:
            models = client.models()
        except NobodyAnswersError:
            if options.url:
                raise
            return []
    return [ListedModel(str(model.get("id")), url, "served") for model in models]


def _print(models: Iterable[ListedModel]) -> None:
    if sys.stdout.isatty():
        print_table(models)
        return
    for model in models:
        size = "" if model.size_bytes is None else str(model.size_bytes)
        sys.stdout.write("\t".join((*_cells(model), size)) + "\n")


def print_table(models: Iterable[ListedModel]) -> None:
    """For people."""
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="right" if head == "SIZE" else "left", overflow="fold")
    for model in models:
        size = "" if model.size_bytes is None else decimal(model.size_bytes)
        # Text: a name may hold what looks like rich's markup.
        table.add_row(*(Text(text) for text in (*_cells(model), size)))
    Console().print(table)


def _cells(model: ListedModel) -> list[str]:
    """Each on one line: a service can say anything."""
    return [shown(" ".join(text.split())) for text in (model.uri, model.source, model.state)]


if __name__ == "__main__":
    sys.exit(main())
