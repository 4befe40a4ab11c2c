"""The console script `vfastml`, also `python -m prebuilt_apps.cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from prebuilt_apps.commands import COMMANDS
from prebuilt_apps.flags import FlagParser
from vfastml import __version__

_PROG = "vfastml"
_INTERRUPTED = 128 + 2
_READER_GONE = 128 + 13
"""As a shell reports a process that SIGPIPE has ended."""


def build_parser() -> FlagParser:
    """What can be said without a command."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:{width}}  {command.summary}" for command in COMMANDS]
    parser = FlagParser(
        _PROG,
        "Serves machine-learning models with an OpenAI-compatible API.",
        epilog="\n".join(["commands:", *lines, "", f"`{_PROG} COMMAND --help` tells more of each."]),
    )
    parser.usage = f"{_PROG} COMMAND [...]"
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}", help="show the version")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status, or leaves by SystemExit with it."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        return build_parser().without_subcommand("command", name, rest, [command.name for command in COMMANDS])
    try:
        return int(import_module(command.module).main(rest, f"{_PROG} {name}") or 0)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python would complain about it once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


if __name__ == "__main__":
    sys.exit(main())
