"""From the C++ sources beside this file to a shared library: compiled once for each level of instructions, and kept."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path

from vfastml.text_engine.cpu_kernels.levels import Level

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "VFASTML_KERNELS_DIR"
"""A folder with libraries that were compiled before, as in an image; new ones go there too."""

_SOURCES = Path(__file__).parent
_COMPILERS = ("g++", "c++", "clang++")
# No -march=native: what a level means must not depend on the machine that compiles. No -ffast-math: the order of sums
# is part of what the kernels promise.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-w")
_TIMEOUT_S = 300


class BuildError(Exception):
    """The library cannot be had; says why, and what would help."""


def library(level: Level) -> Path:
    """The compiled library for that level; compiles it if it is not there. Raises BuildError."""
    for folder in _folders():
        found = folder / _name(level)
        if found.is_file():
            return found
    return build(level)


def build(level: Level, folder: Path | None = None) -> Path:
    """Compiles for that level into the folder, or where the user's libraries are. Raises BuildError."""
    compiler = _compiler()
    for target in [folder] if folder else _folders():
        try:
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            return _compile(compiler, level, target / _name(level))
        except OSError as error:
            problem = error
    raise BuildError(f"the CPU kernels cannot be written ({problem}): set {FOLDER_VARIABLE} to a folder that can")


def _compile(compiler: str, level: Level, target: Path) -> Path:
    logger.info("compiling the CPU kernels for %s with %s: once, some seconds", level.name, Path(compiler).name)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        output = Path(folder) / target.name
        sources = [str(path) for path in sorted(_SOURCES.glob("*.cpp"))]
        command = [compiler, *_FLAGS, *level.flags, "-o", str(output), *sources]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{Path(compiler).name} took more than {_TIMEOUT_S} s") from error
        if run.returncode != 0:
            why = textwrap.shorten(run.stderr, 300, placeholder=" ...")
            raise BuildError(f"{Path(compiler).name} cannot compile the CPU kernels: {why}")
        output.replace(target)  # whole or not at all, also when several processes compile at the same time
    return target


def _compiler() -> str:
    for name in (os.environ.get("CXX"), *_COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    raise BuildError("there is no C++ compiler: install g++, which makes this model about three times as fast")


def _folders() -> list[Path]:
    """Where libraries may lie, best first; the last one is for a home that cannot be written."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return [Path(chosen).expanduser().absolute()]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(os.environ.get("VFASTML_CACHE") or caches / "vfastml").expanduser().absolute() / "kernels"]


def _name(level: Level) -> str:
    digest = hashlib.sha256(" ".join((*_FLAGS, *level.flags)).encode())
    for path in sorted((*_SOURCES.glob("*.cpp"), *_SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    return f"vfastml-{level.name}-{digest.hexdigest()[:16]}.so"
