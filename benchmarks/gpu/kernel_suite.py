"""All kernels on one device. A family that cannot run leaves a note, and the others go on."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator

import torch

from benchmarks.gpu.bandwidth import copy_bytes_per_s
from benchmarks.gpu.kernel_cases import FORMATS, KernelSizes, measured
from benchmarks.gpu.kernel_gemms import peak_operations
from benchmarks.gpu.kernel_timer import KernelTimer
from benchmarks.kernel_records import KernelRun, Limits

FAMILIES = {
    "products": ("benchmarks.gpu.kernel_gemms", "gemm_cases"),
    "skinny products": ("benchmarks.gpu.kernel_skinny", "skinny_cases"),
    "fp8 products": ("benchmarks.gpu.kernel_fp8", "fp8_cases"),
    "attention": ("benchmarks.gpu.kernel_attention", "attention_cases"),
    "rows": ("benchmarks.gpu.kernel_layers", "layer_cases"),
    "sampling": ("benchmarks.gpu.kernel_sampling", "sampling_cases"),
}
"""Where the cases of each are: imported when they are measured, because not every machine has what they need."""
_COPIED_BYTES = 4_000_000_000


class KernelSuite:
    """Measures on the device of `sizes`; `seconds` is for each kernel."""

    def __init__(self, sizes: KernelSizes, seconds: float) -> None:
        self.failures: dict[str, str] = {}
        """By family: why it has not all been measured."""
        self._sizes = sizes
        self._timer = KernelTimer(sizes.device, seconds)
        self._format = FORMATS[sizes.dtype]
        self.limits = self._measure_limits()

    @torch.inference_mode()
    def runs(self, families: list[str]) -> Iterator[KernelRun]:
        """In that order."""
        for family in families:
            module, cases = FAMILIES[family]
            try:
                make = getattr(importlib.import_module(module), cases)
                yield from measured(make(self._sizes), self._timer, self.limits, self._format)
            except Exception as error:  # one that this card or this Triton cannot compile must not cost the rest
                self.failures[family] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"

    def _measure_limits(self) -> Limits:
        sizes = self._sizes
        num_bytes = _COPIED_BYTES if sizes.device.type == "cuda" else 1_000_000
        square, operations = peak_operations(sizes)
        return Limits(
            threads=0,
            bytes_per_s=copy_bytes_per_s(sizes.device, num_bytes),
            operations_per_s={self._format: operations / self._timer.median_s(square.run)},
        )


def step_us(runs: list[KernelRun]) -> dict[int, dict[str, float]]:
    """By rows of a decode step: microseconds of each kernel in it, all its runs together; of a product the faster of
    cuBLAS's and ours. What is not one of them, such as looking up embeddings, is not in it."""
    steps: dict[int, dict[str, float]] = {}
    for run in runs:
        if run.per_step:
            parts = steps.setdefault(run.rows, {})
            name = f"{run.family.removeprefix('skinny ')}: {run.kernel}"
            parts[name] = min(parts.get(name, math.inf), 1e6 * run.seconds * run.per_step)
    return steps
