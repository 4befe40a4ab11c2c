"""`python -m vfastml.text_engine.cpu_kernels`: compiles the kernels ahead of time, as for an image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vfastml.text_engine.cpu_kernels.build import FOLDER_VARIABLE, BuildError, build
from vfastml.text_engine.cpu_kernels.levels import LEVELS, Level, fitting_levels, level_named


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if nothing could be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m vfastml.text_engine.cpu_kernels",
        description="Compiles the CPU kernels ahead of time; a server otherwise does so at its first start.",
    )
    names = [level.name for level in LEVELS]
    parser.add_argument("--level", choices=["auto", "all", *names], default="auto", help="instructions to compile for")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"default: ${FOLDER_VARIABLE}, else the user's cache folder"
    )
    options = parser.parse_args(argv)
    levels = _asked(options.level)
    if not levels:
        print("this processor has no AVX2: name a --level", file=sys.stderr)
        return 1
    try:
        for level in levels:
            print(build(level, options.output))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _asked(name: str) -> list[Level]:
    if name == "all":
        return list(LEVELS)
    return fitting_levels()[:1] if name == "auto" else [level_named(name)]


if __name__ == "__main__":
    sys.exit(main())
