"""Kernels beside their references in torch and beside the card's limits: a part of the benchmark of a GPU."""

from __future__ import annotations

import sys

import torch

from benchmarks.gpu.kernel_cases import KernelSizes
from benchmarks.gpu.kernel_suite import FAMILIES, KernelSuite, step_us
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.model_shapes import SHAPES
from benchmarks.gpu.part_program import part_program
from benchmarks.gpu.tasks import KernelTask
from benchmarks.gpu.titles import KERNEL_STEPS, KERNELS
from benchmarks.kernel_bench import ModelShape
from benchmarks.kernel_records import KernelRun


def measure(task: KernelTask, found: MeasurementFile) -> None:
    """Every family, then what a decode step comes to."""
    numbers = SHAPES[task.model].numbers
    sizes = KernelSizes(
        shape=ModelShape(
            hidden=numbers["hidden_size"],
            intermediate=numbers["intermediate_size"],
            heads=numbers["num_attention_heads"],
            kv_heads=numbers["num_key_value_heads"],
            head_dim=numbers["head_dim"],
            vocab=numbers["vocab_size"],
        ),
        layers=numbers["num_hidden_layers"],
        device=torch.device(task.device),
        dtype=getattr(torch, task.dtype),
        rows=task.rows,
        prefill_rows=task.prefill_rows,
        context=task.context,
    )
    suite = KernelSuite(sizes, task.seconds)
    runs = []
    for run in suite.runs(list(FAMILIES)):
        runs.append(run)
        found.add(_measurement(task, run))
    for rows, parts in step_us(runs).items():
        figures = {"all, us": sum(parts.values())} | {f"{name}, us": value for name, value in parts.items()}
        case = f"n={rows}"
        found.add(Measurement(part=task.part, model=task.model, case=case, workload=KERNEL_STEPS, figures=figures))
    notes = [f"{suite.limits}", *(f"{family} broke off: {why}" for family, why in suite.failures.items())]
    found.add(Measurement(part=task.part, model=task.model, workload=KERNELS, notes=notes))


def _measurement(task: KernelTask, run: KernelRun) -> Measurement:
    figures = {"us": 1e6 * run.seconds}
    if run.num_bytes:
        figures["GB/s"] = run.num_bytes / run.seconds / 1e9
    if run.operations:
        figures["TFLOP/s"] = run.operations / run.seconds / 1e12
    if run.share is not None:
        figures["of limit, %"] = 100 * run.share
    figures |= {f"{name}, us": 1e6 * seconds for name, seconds in run.others.items()}
    return Measurement(
        part=task.part,
        model=task.model,
        case=f"{run.kernel}, n={run.rows}",
        workload=KERNELS,
        settings={"family": run.family, "rows": run.rows},
        figures=figures,
    )


if __name__ == "__main__":
    sys.exit(part_program(measure, KernelTask))
