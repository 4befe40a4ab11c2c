"""What the programs of the parts are given. Apart from them, so that who hands out tasks need not load torch."""

from __future__ import annotations

from typing import Any

import msgspec


class BandwidthTask(msgspec.Struct, kw_only=True):
    """What is copied and read."""

    part: str
    device: str
    num_bytes: int


class TestsTask(msgspec.Struct, kw_only=True):
    """What pytest is asked for, and how long it may take."""

    __test__ = False
    part: str
    runs: list[list[str]]
    """Arguments of each call."""
    seconds: float


class Workload(msgspec.Struct, kw_only=True):
    """Prompts of one length, and answers of one length."""

    name: str
    sequences: int
    """Prompts in all."""
    concurrency: int | None = None
    """At a time; None: as many as the engine takes."""
    input_tokens: int
    output_tokens: int
    shared: float = 0.0
    """Part of a prompt that is alike in all of them, and that one before them had."""
    repeats: int = 1

    @property
    def lengths(self) -> dict[str, Any]:
        """For the record."""
        numbers = {"sequences": self.sequences, "in": self.input_tokens, "out": self.output_tokens}
        return numbers | ({"at a time": self.concurrency} if self.concurrency else {})


class OfflineTask(msgspec.Struct, kw_only=True):
    """A configuration of the engine, and what is measured with it."""

    part: str
    model: str
    case: str
    folder: str
    config: dict[str, Any]
    """Fields of EngineConfig."""
    workloads: list[Workload]
    seed: int


class TransformersTask(msgspec.Struct, kw_only=True):
    """Workloads of both methods, on random weights."""

    part: str
    model: str
    folder: str
    device: str
    dtype: str
    static: list[Workload]
    continuous: list[Workload]
    seed: int


class ServingTask(msgspec.Struct, kw_only=True):
    """Closed loops, one after the other; prompts and answers are of one length."""

    part: str
    model: str
    folder: str
    dtype: str
    flags: list[str]
    """Of the server, beside model, dtype and ports."""
    levels: list[int]
    """Requests in flight."""
    requests: int | None
    """Of each level; None: four for each place, at least eight."""
    input_tokens: int
    output_tokens: int
    start_timeout_s: float
    seed: int


class EqualityTask(msgspec.Struct, kw_only=True):
    """A small model, and settings of the engine by case."""

    part: str
    shape: str
    may_be_built_in: bool
    """Where that is at hand, the built-in model is taken, and not a random one of this shape."""
    device: str
    dtype: str
    """That is served; errors are against float32."""
    cases: dict[str, dict[str, Any]]
    prompt_lengths: list[int]
    tokens: int
    rows: int
    """Of which logits are compared; of the last prompt length."""
    seed: int


class KernelTask(msgspec.Struct, kw_only=True):
    """Kernels on one shape of model."""

    part: str
    model: str
    device: str
    dtype: str
    rows: list[int]
    """Of products and of what is done to single rows; of attention, sequences that decode."""
    prefill_rows: int
    context: int
    seconds: float
    """That a kernel is run for."""
