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
# No -march=native: what a level means must not depend on the machine that compiles. No -ffast-math, and sums fused with
# products only where the code says so: the order and the rounding of sums are part of what the kernels promise.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-ffp-contract=off", "-w")
_TIMEOUT_S = 300


class BuildError(Exception):
    """The library cannot be had; says why, and what would help."""


def library(level: Level) -> Path:
    """The compiled library for that level; compiles it if it is not there. Raises BuildError."""
    found = _folder() / _name(level)
    return _trusted(found) if found.is_file() else build(level)


def build(level: Level, folder: Path | None = None) -> Path:
    """Compiles for that level into the folder, or where the user's libraries are. Raises BuildError."""
    compiler = _compiler()
    target = (folder or _folder()) / _name(level)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
            made = Path(scratch) / target.name
            _compile(compiler, level, made)
            made.chmod(0o755)
            made.replace(target)  # whole or not at all, also when several processes compile at the same time
    except OSError as error:
        raise BuildError(
            f"the CPU kernels cannot be written ({error}): set {FOLDER_VARIABLE} to a folder that can"
        ) from error
    return target


def _trusted(path: Path) -> Path:
    """What is loaded runs as this process: nobody else may have put it there."""
    for checked in (path, path.parent):
        found = checked.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise BuildError(
                f"others can write to {checked}: remove it, or set {FOLDER_VARIABLE} to a folder of your own"
            )
    return path


def _compile(compiler: str, level: Level, output: Path) -> None:
    name = Path(compiler).name
    logger.info("compiling the CPU kernels for %s with %s: once, some seconds", level.name, name)
    sources = [str(path) for path in sorted(_SOURCES.glob("*.cpp"))]
    command = [compiler, *_FLAGS, *level.flags, "-o", str(output), *sources]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{name} cannot compile the CPU kernels: {error}") from error
    if run.returncode != 0:
        why = textwrap.shorten(run.stderr, 300, placeholder=" ...")
        raise BuildError(f"{name} cannot compile the CPU kernels: {why}")


def _compiler() -> str:
    for name in (os.environ.get("CXX"), *_COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    raise BuildError("there is no C++ compiler: install g++, which makes this model about three times as fast")


def _folder() -> Path:
    """Where libraries lie."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser().absolute()
    try:
        caches = (
            os.environ.get("VFASTML_CACHE")
            or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vfastml"
        )
        return Path(caches).expanduser().absolute() / "kernels"
    except RuntimeError as error:  # no home
        raise BuildError(f"the CPU kernels have no place to be: set {FOLDER_VARIABLE} to a folder") from error


def _name(level: Level) -> str:
    digest = hashlib.sha256(" ".join((*_FLAGS, *level.flags)).encode())
    for path in sorted((*_SOURCES.glob("*.cpp"), *_SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    return f"vfastml-{level.name}-{digest.hexdigest()[:16]}.so"
