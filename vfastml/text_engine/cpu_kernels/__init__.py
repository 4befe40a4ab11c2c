"""Kernels for x86 processors, in C++: a whole decoder step in one call, compiled where it runs."""

from vfastml.text_engine.cpu_kernels.kernels import Kernels, NoKernels, load

__all__ = ["Kernels", "NoKernels", "load"]
