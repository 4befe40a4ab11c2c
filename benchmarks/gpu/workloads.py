"""What engines are asked to do."""

from __future__ import annotations

from benchmarks.gpu.tasks import Workload
from benchmarks.gpu.titles import LONG, NOTHING_SHARED, PREFIX, SATURATION, batch, closed_loop

HTTP_LENGTHS = (256, 128)
"""Tokens in and out."""
_REQUESTS_A_PLACE, _FEWEST_REQUESTS = 4, 8


def batches(*sizes: int, repeats: int = 1) -> list[Workload]:
    """128 tokens in, 256 out."""
    return [_workload(batch(size), size, 128, 256, repeats=repeats) for size in sizes]


def matrix(levels: tuple[int, ...]) -> list[Workload]:
    """All of it, in order of value; closed loops are the workloads that are also measured over HTTP."""
    return [
        *batches(1, repeats=3),
        *batches(128, repeats=2),
        _workload(SATURATION, 512, 256, 256),
        *(closed(level) for level in levels),
        *batches(32, 8, 256),
        _workload(NOTHING_SHARED, 128, 1000, 64),
        _workload(PREFIX, 128, 1000, 64, shared=0.9),
    ]


def closed(level: int) -> Workload:
    """So many at a time."""
    sequences = max(_FEWEST_REQUESTS, _REQUESTS_A_PLACE * level)
    return _workload(closed_loop(level), sequences, *HTTP_LENGTHS, concurrency=level)


def long() -> list[Workload]:
    """More cache than most have at a time."""
    return [_workload(LONG, 256, 1000, 1000)]


def _workload(
    name: str,
    sequences: int,
    input_tokens: int,
    output_tokens: int,
    *,
    concurrency: int | None = None,
    shared: float = 0.0,
    repeats: int = 1,
) -> Workload:
    return Workload(
        name=name,
        sequences=sequences,
        concurrency=concurrency,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        shared=shared,
        repeats=repeats,
    )
