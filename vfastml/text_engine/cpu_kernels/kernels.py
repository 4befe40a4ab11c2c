"""The compiled kernels, ready to be called."""

from __future__ import annotations

import ctypes

from vfastml.text_engine.cpu_kernels import build
from vfastml.text_engine.cpu_kernels.levels import best_level, level_named
from vfastml.text_engine.cpu_kernels.structs import declare


class NoKernels(Exception):
    """This machine cannot run them; says why, and what would help."""


class Kernels:
    """One compiled library. `level` says for which instructions."""

    def __init__(self, library: ctypes.CDLL, level: str) -> None:
        self.library = library
        self.level = level
        self.panel = int(library.vfastml_panel())
        """Outputs of a matrix are padded to a multiple of this."""
        self.group = int(library.vfastml_group())
        """And its inputs to one of this."""


def load(level: str = "auto") -> Kernels:
    """Compiles them first if need be. `auto` takes the best instructions that the processor has. Raises NoKernels."""
    chosen = best_level() if level == "auto" else level_named(level)
    if chosen is None:
        raise NoKernels("this processor has no AVX2")
    try:
        path = build.library(chosen)
        return Kernels(declare(ctypes.CDLL(str(path))), chosen.name)
    except build.BuildError as error:
        raise NoKernels(str(error)) from error
    except OSError as error:
        raise NoKernels(f"the compiled kernels cannot be loaded: {error}") from error
