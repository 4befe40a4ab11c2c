"""What the command lines of the programs share."""

from __future__ import annotations

import argparse
import math
import secrets


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


def without_secret(arguments: list[str]) -> list[str]:
    """A command line that may be stored."""
    shown = [f"{each.partition('=')[0]}=..." if each.startswith("--api-key=") else each for each in arguments]
    return ["..." if before == "--api-key" else each for before, each in zip(["", *shown], shown, strict=False)]
