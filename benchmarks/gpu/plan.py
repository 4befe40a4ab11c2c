"""What is measured, in order of value: if the time is up, the least important has been lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gpu.model_shapes import ModelShape, write_shape
from benchmarks.gpu.parts import Part
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.tasks import (
    BandwidthTask,
    EqualityTask,
    KernelTask,
    OfflineTask,
    ServingTask,
    TestsTask,
    TransformersTask,
    Workload,
)
from benchmarks.gpu.titles import DEFAULT
from benchmarks.gpu.workloads import batches, closed, long, matrix

SWITCHES: dict[str, dict[str, Any]] = {
    "no CUDA graphs": {"cuda_graphs": False},
    "no overlap": {"overlap": False},
    "fp8 weights": {"quantization": "fp8"},
    "attention sdpa": {"attention_backend": "sdpa"},
    "decoder fused-torch": {"decoder": "fused-torch"},
    "attention varlen": {"attention_backend": "varlen"},
    "attention flash": {"attention_backend": "flash"},
    "attention triton": {"attention_backend": "triton"},
}
"""What is changed, one at a time; last what is the default wherever it runs."""
HOST_SWITCHES = ("no CUDA graphs", "no overlap")
"""What they save is of the host, and shows most on a small model."""
_FIRST_SWITCHES = (*HOST_SWITCHES, "fp8 weights")
_WITHOUT_A_CARD = "*/test_*compile*"
"""Tests that compile for all GPUs where there is none: minutes that say nothing of the one that is here."""
_DUMMY = {"load_format": "dummy"}
_SMALL_ENGINE = {"kv_cache_memory": 1_000_000_000, "max_model_len": 1024, "max_num_seqs": 8}
"""Several are made in one process."""


class Plan:
    """The parts at one scale. Folders of models are made in `folder`."""

    def __init__(self, scale: Scale, folder: Path, seed: int) -> None:
        self._scale = scale
        self._folder = folder
        self._seed = seed

    def parts(self) -> list[Part]:
        """In the order in which they are to run."""
        return list(self._parts())

    def _parts(self) -> Iterator[Part]:
        large, small, middle = self._scale.large, self._scale.small, self._scale.middle
        yield self._bandwidth()
        yield self._tests()
        yield self._equality()
        yield self._offline(130, large, DEFAULT, matrix(self._scale.levels))
        yield self._transformers(large)
        yield self._serving(large)
        yield from (self._switch(large, case) for case in HOST_SWITCHES)
        if small is not None:
            yield self._offline(40, small, DEFAULT, _switch_workloads())
            yield from (self._switch(small, case) for case in HOST_SWITCHES)
        yield self._switch(large, "fp8 weights")
        yield self._kernels(large)
        yield from (self._switch(large, case) for case in SWITCHES if case not in _FIRST_SWITCHES)
        if middle is not None:
            yield self._offline(45, middle, DEFAULT, _switch_workloads())
        yield self._offline(90, large, DEFAULT, long(), suffix=" long")

    def _bandwidth(self) -> Part:
        task = BandwidthTask(part="bandwidth", device=self._scale.device, num_bytes=self._scale.copied_bytes)
        return self._part(task.part, 30, "bandwidth", task)

    def _tests(self) -> Part:
        runs = [[*self._scale.tests, f"--ignore-glob={_WITHOUT_A_CARD}"]]
        others = [path for path in files_marked_gpu() if not path.startswith(self._scale.tests)]
        if self._scale.is_real and others:
            runs.append([*others, "-m", "gpu"])
        task = TestsTask(part="tests", runs=runs, seconds=self._scale.test_seconds)
        return self._part(task.part, 80, "gpu_tests", task)

    def _equality(self) -> Part:
        scale = self._scale
        own = {"device": scale.device} | _SMALL_ENGINE | scale.config
        lengths = self._scale.shrunk(Workload(name="", sequences=4, input_tokens=130, output_tokens=48))
        task = EqualityTask(
            part="equality",
            shape=scale.equality.name,
            may_be_built_in=scale.is_real,
            device=scale.device,
            dtype=scale.dtype,
            cases={DEFAULT: own, "attention sdpa": own | SWITCHES["attention sdpa"]},
            prompt_lengths=sorted({5, min(40, lengths.input_tokens), lengths.input_tokens}),
            tokens=lengths.output_tokens,
            rows=lengths.sequences,
            seed=self._seed,
        )
        return self._part(task.part, 60, "equality", task)

    def _offline(
        self, budget_s: float, shape: ModelShape, case: str, workloads: Sequence[Workload], suffix: str = ""
    ) -> Part:
        scale = self._scale
        own = {"device": scale.device, "dtype": scale.dtype} | _DUMMY | scale.config
        task = OfflineTask(
            part=f"{shape.name}, {case}{suffix}",
            model=shape.name,
            case=case,
            folder=self._model(shape),
            config=own | SWITCHES.get(case, {}),
            workloads=[scale.shrunk(workload) for workload in workloads],
            seed=self._seed,
        )
        return self._part(task.part, budget_s, "offline", task)

    def _switch(self, shape: ModelShape, case: str) -> Part:
        return self._offline(40, shape, case, _switch_workloads())

    def _transformers(self, shape: ModelShape) -> Part:
        scale = self._scale
        task = TransformersTask(
            part=f"{shape.name}, transformers",
            model=shape.name,
            folder=self._model(shape),
            device=scale.device,
            dtype=scale.dtype,
            static=[scale.shrunk(workload) for workload in batches(1)],
            continuous=[scale.shrunk(workload) for workload in batches(128)],
            seed=self._seed,
        )
        return self._part(task.part, 80, "transformers_part", task)

    def _serving(self, shape: ModelShape) -> Part:
        scale = self._scale
        loops = [scale.shrunk(closed(level)) for level in scale.levels]
        task = ServingTask(
            part=f"{shape.name}, HTTP",
            model=shape.name,
            folder=self._model(shape),
            dtype=scale.dtype,
            flags=["--device", scale.device, "--load-format", "dummy", "--measure-limits", "never", *scale.flags],
            levels=list(scale.levels),
            requests=None if scale.most is None else scale.most.sequences,
            input_tokens=loops[0].input_tokens,
            output_tokens=loops[0].output_tokens,
            start_timeout_s=60 * scale.patience,
            seed=self._seed,
        )
        return self._part(task.part, 90, "serving", task)

    def _kernels(self, shape: ModelShape) -> Part:
        scale = self._scale
        task = KernelTask(
            part="kernels",
            model=shape.name,
            device=scale.device,
            dtype=scale.dtype,
            rows=[1, 8, 32, 128, 256] if scale.is_real else [1, 2],
            prefill_rows=8192 if scale.is_real else 16,
            context=1024 if scale.is_real else 16,
            seconds=0.05,
        )
        return self._part(task.part, 80, "kernel_part", task)

    def _part(self, name: str, budget_s: float, program: str, task: msgspec.Struct) -> Part:
        words = (sys.executable, "-m", f"benchmarks.gpu.{program}", msgspec.json.encode(task).decode())
        return Part(name, budget_s * self._scale.patience, words)

    def _model(self, shape: ModelShape) -> str:
        folder = self._folder / shape.name
        if not folder.exists():
            write_shape(shape, folder)
        return str(folder)


def files_marked_gpu() -> list[str]:
    """Files, found by their text: to collect them all would take longer than to run them."""
    return sorted(str(path) for path in Path("tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text())


def _switch_workloads() -> list[Workload]:
    return batches(1, 128)
