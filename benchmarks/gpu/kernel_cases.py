"""What is measured of a kernel, on whichever device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.kernel_timer import KernelTimer
from benchmarks.kernel_bench import ModelShape
from benchmarks.kernel_records import KernelRun, Limits

FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class KernelSizes:
    """What the kernels are given."""

    shape: ModelShape
    layers: int
    device: torch.device
    dtype: torch.dtype
    rows: Sequence[int]
    """Of decode steps."""
    prefill_rows: int
    context: int
    """Tokens of each row that decodes."""

    def random(self, *size: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Between -1 and 1, on the device."""
        return torch.empty(*size, dtype=dtype or self.dtype, device=self.device).uniform_(-1, 1)


@dataclass(frozen=True)
class KernelCase:
    """One kernel on inputs of one size."""

    family: str
    kernel: str
    rows: int
    run: Callable[[], object]
    variants: tuple[Callable[[], object], ...] = ()
    """Of `run`; the fastest counts."""
    others: dict[str, Callable[[], object]] = field(default_factory=dict)
    """The same in torch, by name."""
    num_bytes: float = 0.0
    """Each input read once, each output written once."""
    operations: float = 0.0
    per_step: int = 0
    """How often a decode step of so many rows runs it; 0: not as it is here."""


def measured(
    cases: Iterator[KernelCase], timer: KernelTimer, limits: Limits, number_format: str
) -> Iterator[KernelRun]:
    """Each case by itself."""
    for case in cases:
        yield KernelRun(
            family=case.family,
            kernel=case.kernel,
            number_format=number_format,
            threads=0,
            rows=case.rows,
            seconds=min(map(timer.median_s, (case.run, *case.variants))),
            others={name: timer.median_s(run) for name, run in case.others.items()},
            num_bytes=case.num_bytes,
            operations=case.operations,
            least_s=limits.seconds(case.num_bytes, case.operations, number_format),
            per_step=case.per_step,
        )
