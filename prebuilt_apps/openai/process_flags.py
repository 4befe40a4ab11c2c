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


def add_process_flags(parser: argparse._ActionsContainer) -> None:
    """How the process binds, ends and logs."""
    add = parser.add_argument
    add("--insecure", action="store_true", help="allow an address that other machines can reach, without keys")
    add("--drain-timeout", type=float, default=30.0, metavar="SECONDS", help="for what is open at SIGTERM")
    add("--log-level", default="info", choices=LEVELS, help="least severe level to show")
