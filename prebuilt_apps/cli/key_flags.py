"""Flags that the subcommands of `vfastml keys` share."""

from __future__ import annotations

import argparse
from pathlib import Path

NO_START = "a gateway does not start with such a file alone; `vfastml keys new NAME` makes a key"
"""What is to be said of a file without a key."""


def add_file_flag(parser: argparse.ArgumentParser) -> None:
    """Which file it is about. Its variable is the gateway's."""
    parser.add_argument(
        "--file",
        dest="api_key_file",
        type=Path,
        default=Path("keys.toml"),
        metavar="FILE.toml",
        help="the key file, as in --api-key-file of the gateway",
    )
