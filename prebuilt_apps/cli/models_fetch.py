"""`vfastml models fetch URI`: a model onto this machine's disk, for images and machines without a network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from prebuilt_apps.cli.terminal import complain, shown
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.model_store import ModelStoreError, resolve_model
from vfastml.model_store.progress import PhaseLines


def build_parser(prog: str) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Downloads a model, and converts it where need be, so that a later start finds it. Prints its id.",
        epilog="Folders: VFASTML_CACHE and HF_HOME. A token for the hub: HF_ACCESS_TOKEN or HF_TOKEN.",
    )
    parser.add_argument("uri", metavar="URI", help="builtin:NAME, a folder (./NAME), a GGUF file or a hub id")
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Returns 0, or 1 with one line if the model cannot be had."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    try:
        model = resolve_model(options.uri, progress=PhaseLines(partial(complain, prog)))
    except ModelStoreError as error:
        complain(prog, str(error))
        return 1
    sys.stdout.write(f"{shown(model.model_id)}\n")
    return 0
