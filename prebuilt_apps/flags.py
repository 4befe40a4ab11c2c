"""Flags as every command has them: each is an environment variable too, and a mistake is one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from prebuilt_apps import flag_types
from prebuilt_apps.variables import nearest, variable_of
from vfastml.engine.server_table import MAX_STEP_S
from vfastml.utils.logging import LEVELS, LOG_FORMATS

_FROM_VARIABLE = object()
"""Stands in a namespace for a value that the environment has, until the command line has had its say."""

_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Repeated(argparse.Action):
    """Collects the values of a flag that may be repeated. Those of the command line replace those of the variable,
    which has them with commas between."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*before, values] if isinstance(before, list) else [values])


class FlagParser(argparse.ArgumentParser):
    """A command line. A flag that is not given is taken from its variable, `VFASTML_` and its name, where that is set
    and not empty; one whose default is SUPPRESS has no variable.

    Flags are written out: an abbreviation may mean another flag tomorrow.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog, description=description, epilog=epilog, formatter_class=_FlagHelp, allow_abbrev=False)

    def variables(self) -> dict[str, argparse.Action]:
        """The flags that have a variable, by its name."""
        return {variable_of(action.dest): action for action in self._actions if _has_variable(action)}

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """All values, from the command line, the environment or defaults. A mistake leaves by SystemExit 2 with one
        line that names the flag or the variable."""
        found = {name: action for name, action in self.variables().items() if os.environ.get(name)}
        options = argparse.Namespace(**{action.dest: _FROM_VARIABLE for action in found.values()})
        given = sys.argv[1:] if arguments is None else list(arguments)
        # The second lets flags stand between words, and loses a `--`.
        read = self.parse_known_args if "--" in given else self.parse_known_intermixed_args
        _, unknown = read(given, options)
        if unknown:
            self.error(self._complaint_about(unknown))
        for name, action in found.items():
            if getattr(options, action.dest) is _FROM_VARIABLE:
                setattr(options, action.dest, self._read(name, action))
        return options

    def error(self, message: str) -> NoReturn:
        """Leaves with that line: the usage of all flags would bury it."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def without_subcommand(self, what: str, name: str, rest: Sequence[str], known: Sequence[str]) -> int:
        """For a `name` that is none of the `known` ones, or empty: its own flags are obeyed, an unknown word is
        refused, and else the help goes to stderr. Returns 2, or leaves by SystemExit."""
        if name.startswith("-"):
            self.parse([name, *rest])
        elif name:
            self.error(f"unknown {what} {name!r}{nearest(name, known)}")
        self.print_help(sys.stderr)
        return 2

    def _complaint_about(self, unknown: list[str]) -> str:
        name = next((text for text in unknown if text.startswith("-")), unknown[0]).partition("=")[0]
        if not name.startswith("-"):
            return f"unexpected argument {name!r}"
        return f"unknown flag {name}{nearest(name, self._shown_flags())}"

    def _shown_flags(self) -> list[str]:
        shown = [action for action in self._actions if action.help is not argparse.SUPPRESS]
        return [flag for action in shown for flag in action.option_strings]

    def _read(self, variable: str, action: argparse.Action) -> Any:
        text = os.environ[variable]
        try:
            if isinstance(action, Repeated):
                return [self._value(action, part.strip()) for part in text.split(",")]
            return self._value(action, text)
        except argparse.ArgumentError as error:
            self.error(f"variable {variable}: {error.message}")

    def _value(self, action: argparse.Action, text: str) -> Any:
        if action.nargs == 0:
            return _switch(action, text)
        value = self._get_value(action, text)
        self._check_value(action, value)
        return value


class _FlagHelp(argparse.RawDescriptionHelpFormatter):
    """Shows the default and the variable of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        parts = [action.help or ""]
        if action.default not in (None, False, argparse.SUPPRESS):
            parts.append("(default: %(default)s)")
        if _has_variable(action):
            parts.append(f"[env {variable_of(action.dest)}]")
        return " ".join(parts)


def add_process_flags(parser: argparse._ActionsContainer) -> None:
    """How a server's process binds, ends and logs."""
    add = parser.add_argument
    add("--insecure", action="store_true", help="allow an address that other machines can reach, without keys")
    add(
        "--drain-timeout",
        type=flag_types.seconds,
        default=30.0,
        metavar="SECONDS",
        help="for what is open at SIGTERM",
    )
    levels = f"{{{','.join(LEVELS)}}}"
    add("--log-level", type=flag_types.log_level, default="info", metavar=levels, help="least severe level to show")
    add("--log-format", choices=LOG_FORMATS, default="text", help="of log lines: for people, or an object a line")
    # As the first VFastML spelt it.
    add(
        "--log_level",
        "--loglevel",
        dest="log_level",
        type=flag_types.log_level,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def add_wire_keys_flag(parser: argparse._ActionsContainer) -> None:
    """Who may speak on the wire."""
    parser.add_argument(
        "--wire-keys",
        metavar="DIR",
        help="keys of the wire between gateways and model servers on different machines, as `vfastml keys wire` makes "
        "them; default: none, and no other machine",
    )


def add_max_step_flag(parser: argparse._ActionsContainer) -> None:
    """When a model server counts as hung."""
    parser.add_argument(
        "--max-step",
        type=flag_types.time_limit,
        default=MAX_STEP_S,
        metavar="SECONDS",
        help="how long a model server's step may take: then the server counts as hung, and ends itself",
    )


def _has_variable(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.default is not argparse.SUPPRESS


def _switch(action: argparse.Action, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise argparse.ArgumentError(action, f"expected one of {', '.join(_SWITCH)}")
    return _SWITCH[text.lower()]
