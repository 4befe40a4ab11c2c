"""What the command lines of the programs share."""

from __future__ import annotations

import argparse
import math
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

_SECRET = re.compile(r"(--api-key(?:=|\s+))\S+")
_FOLDERS = re.compile(r"""(?<![^\s=,'"])(?:file:|~|/)[^,'"]*?(?=\s+-|[,'"]|$)""")
"""From the beginning of an absolute path to the flag that follows, if any: a path may have spaces in it."""


def new_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Help with defaults; flags are written out."""
    return argparse.ArgumentParser(prog, description=description, formatter_class=_Help, allow_abbrev=False)


class _Help(argparse.HelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default not in (None, False, argparse.SUPPRESS)
        return f"{action.help} (default: %(default)s)" if has_default else action.help


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it has to be at least 1")
    return number


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it has to be at least 0")
    return number


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1, ascending, with commas between them."""
    return sorted({positive(part) for part in text.split(",")})


def ratio(text: str) -> float:
    """At least 0 and less than 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError("it has to be at least 0 and less than 1")
    return number


def rates(text: str) -> list[float]:
    """Numbers above 0, ascending, with commas between them; `inf` is one."""
    found = sorted({float(part) for part in text.split(",")})
    if not all(rate > 0 for rate in found):  # also false for nan
        raise argparse.ArgumentTypeError("each rate has to be more than 0")
    return found


def milliseconds(text: str) -> float:
    """Above 0, returned in seconds."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("it has to be more than 0")
    return number / 1e3


def new_seed() -> int:
    """From the system's randomness."""
    return secrets.randbits(32)


def recorded(arguments: Sequence[str]) -> list[str]:
    """A command line that may be stored: without keys, and without where things lie on a machine."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return ["..." if before == "--api-key" else recorded_text(each) for before, each in pairs]


def recorded_text(text: str) -> str:
    """One argument, or several in one text; of an absolute path its last part."""
    return _FOLDERS.sub(lambda found: Path(found[0]).name, _SECRET.sub(r"\1...", text))
