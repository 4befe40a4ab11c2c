"""Triton's compiler for a GPU that need not be there: all of a launch but the launch."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction


class AbsentGPU:
    """As much of Triton's driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(capability: int) -> dict[str, list[Any]]:
    """From now on a launch compiles, for the tensors' addresses and all numbers as they are, and does nothing else: for
    a process of its own, without TRITON_INTERPRET. What is compiled gets into the dict: by the kernel's name, its
    variants."""
    variants: dict[str, list[Any]] = {}
    run = JITFunction.run

    def compile_launch(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        own = variants.setdefault(kernel.__name__, [])
        if all(other is not compiled for other in own):
            own.append(compiled)
        return compiled

    driver.set_active(AbsentGPU(capability))
    JITFunction.run = compile_launch
    return variants
