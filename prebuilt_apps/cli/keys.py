"""`vfastml keys`: API keys in a file, by name, and the keys of the wire. What runs notices each change within about a
second."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from prebuilt_apps.cli import keys_check, keys_list, keys_new, keys_revoke, keys_wire
from prebuilt_apps.flags import FlagParser

_PROG = "python -m prebuilt_apps.cli.keys"

SUBCOMMANDS: dict[str, ModuleType] = {
    "new": keys_new,
    "list": keys_list,
    "revoke": keys_revoke,
    "check": keys_check,
    "wire": keys_wire,
}
"""Each has `SUMMARY`, `build_parser(prog)` and `main(argv, prog)`."""


def build_parser(prog: str = _PROG) -> FlagParser:
    """What can be said without a subcommand."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {module.SUMMARY}" for name, module in SUBCOMMANDS.items()]
    parser = FlagParser(
        prog,
        "Makes, lists, revokes and checks API keys, and makes keys of the wire.\n"
        "A running gateway follows within about a second.",
        epilog="\n".join(["subcommands:", *lines, "", f"`{prog} SUBCOMMAND --help` tells more of each."]),
    )
    parser.usage = f"{prog} SUBCOMMAND [...]"
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Runs one subcommand. Returns its exit status, or leaves by SystemExit with it."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in SUBCOMMANDS:
        return int(SUBCOMMANDS[name].main(rest, f"{prog} {name}"))
    return build_parser(prog).without_subcommand("subcommand", name, rest, list(SUBCOMMANDS))


if __name__ == "__main__":
    sys.exit(main())
