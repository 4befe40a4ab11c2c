"""The compiled kernels, ready to be called."""

from __future__ import annotations

import ctypes

from vfastml.text_engine.cpu_kernels import build
from vfastml.text_engine.cpu_kernels.levels import fitting_levels, level_named
from vfastml.text_engine.cpu_kernels.structs import declare


class NoKernels(Exception):
    """This machine cannot run them; says why, and what would help."""


class Kernels:
    """One compiled library. `level` says for which instructions, `name` also from which sources."""

    def __init__(self, library: ctypes.CDLL, level: str, name: str) -> None:
        self.library = library
        self.level = level
        self.name = name
        self.panel = int(library.vfastml_panel())
        """Outputs of a matrix are padded to a multiple of this."""
        self.group = int(library.vfastml_group())
        """And its inputs to one of this."""


def load(level: str = "auto") -> Kernels:
    """Compiles them first if need be. `auto` takes the best instructions that the processor and the compiler have.
    Raises NoKernels."""
    candidates = fitting_levels() if level == "auto" else [level_named(level)]
    reason = "this processor has no AVX2"
    for candidate in candidates:
        try:
            path = build.library(candidate)
            return Kernels(declare(ctypes.CDLL(str(path))), candidate.name, path.stem)
        except build.BuildError as error:
            reason = str(error)
        except OSError as error:
            reason = f"the compiled kernels cannot be loaded ({error}): remove the file, to have it compiled anew"
    raise NoKernels(reason)
