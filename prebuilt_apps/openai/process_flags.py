"""The flags that every process of an app has."""

from __future__ import annotations

import argparse

from vfastml.utils.logging import LEVELS


class HelpWithDefaults(argparse.HelpFormatter):
    """Shows the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


def new_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Flags are written out: an abbreviation may mean another flag tomorrow."""
    return argparse.ArgumentParser(prog, description=description, formatter_class=HelpWithDefaults, allow_abbrev=False)


def port(text: str) -> int:
    """The type of a flag that is a port; 0 takes a free one."""
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return number


def add_process_flags(parser: argparse._ActionsContainer) -> None:
    """How the process binds, ends and logs."""
    add = parser.add_argument
    add("--insecure", action="store_true", help="allow an address that other machines can reach, without keys")
    add("--drain-timeout", type=float, default=30.0, metavar="SECONDS", help="for what is open at SIGTERM")
    add("--log-level", default="info", choices=LEVELS, help="least severe level to show")
