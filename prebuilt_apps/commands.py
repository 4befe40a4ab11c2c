"""The commands of `vfastml`, as names of modules: each has `build_parser(prog)` and `main(argv, prog)`, and is imported
only when it is needed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module

from prebuilt_apps.flags import FlagParser
from prebuilt_apps.variables import OTHERS, nearest, unknown_variables


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("serve", "prebuilt_apps.openai.__main__", "run a gateway and a model server together"),
    Command("model-server", "prebuilt_apps.openai.model_server", "run a model server alone"),
    Command("api-server", "prebuilt_apps.openai.api_server", "run a gateway alone"),
    Command("chat", "prebuilt_apps.cli.chat", "talk to a model in the terminal"),
    Command("models", "prebuilt_apps.cli.models", "list the models of this machine; `models fetch URI` gets one"),
    Command("usage", "prebuilt_apps.cli.usage", "what each key has used, from a gateway's ledger"),
    Command("keys", "prebuilt_apps.cli.keys", "make, list and revoke API keys, and keys of the wire"),
    Command("health", "prebuilt_apps.cli.health", "exit with 0 if a service is ready, with 1 if not"),
    Command("top", "prebuilt_apps.cli.top.__main__", "watch a service: requests, tokens, latencies, model servers"),
)


def parser_of(command: Command) -> FlagParser:
    """Its command line."""
    parser = import_module(command.module).build_parser(f"vfastml {command.name}")
    assert isinstance(parser, FlagParser)
    return parser


def known_variables() -> frozenset[str]:
    """Every variable that any command reads."""
    return OTHERS.union(*(parser_of(command).variables() for command in COMMANDS))


def warn_of_unknown_variables(parser: FlagParser) -> None:
    """One line on stderr for each VFASTML_ variable that is nobody's: a misspelt one would be missed in silence."""
    if not unknown_variables(os.environ, OTHERS.union(parser.variables())):
        return
    known = known_variables()
    for name in unknown_variables(os.environ, known):
        sys.stderr.write(f"{parser.prog}: warning: the variable {name} is not known{nearest(name, known)}\n")
