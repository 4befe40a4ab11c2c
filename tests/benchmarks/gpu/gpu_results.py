"""Results as they might come from a card."""

from __future__ import annotations

from typing import Any

from benchmarks.engine_titles import DECODE_STEP, TOKENS_PER_S
from benchmarks.gpu.measurements import Measurement
from benchmarks.gpu.records import DONE, FAILED, GpuResult, PartOutcome
from benchmarks.gpu.titles import (
    COPY,
    DEFAULT,
    EQUAL,
    ERROR,
    GREEDY,
    HTTP,
    KERNEL_STEPS,
    KERNELS,
    LOGITS,
    MEMORY,
    REFERENCE_ERROR,
    SATURATION,
    STEP_GB,
    TESTS,
    batch,
    closed_loop,
)
from benchmarks.hf_labels import CONTINUOUS, STATIC
from tests.benchmarks.results import MACHINE

MODEL = "llama-3.1-8b"
_PRODUCTS = {"family": "products"}


def measurement(case: str, workload: str, figures: dict[str, float], **more: Any) -> Measurement:
    """Of the large model."""
    lengths = {"in": 128, "out": 256, "sequences": 1}
    return Measurement(part="p", model=MODEL, case=case, workload=workload, figures=figures, settings=lengths, **more)


def good_result(*, dry: bool = False) -> GpuResult:
    """Meets every target, some of them just so."""
    rate = TOKENS_PER_S
    measurements = [
        Measurement(part="bandwidth", workload=MEMORY, figures={COPY: 3000.0}),
        Measurement(
            part="tests", workload=TESTS, figures={"passed": 40.0, "failed": 0.0, "skipped": 2.0, "not run": 0.0}
        ),
        Measurement(part="equality", model="small", case=DEFAULT, workload=GREEDY, figures={EQUAL: 100.0}),
        Measurement(
            part="equality",
            model="small",
            case=DEFAULT,
            workload=f"{LOGITS}, bfloat16",
            figures={ERROR: 0.7, REFERENCE_ERROR: 0.6},
        ),
        *(
            measurement(DEFAULT, batch(1), {rate: speed, DECODE_STEP: 6.0, STEP_GB: 15.0})
            for speed in (150.0, 152.0, 151.0)
        ),
        measurement(DEFAULT, batch(128), {rate: 10_800.0, DECODE_STEP: 11.0, STEP_GB: 19.0}),
        measurement(DEFAULT, SATURATION, {rate: 11_000.0}),
        measurement(CONTINUOUS, batch(128), {rate: 1800.0}),
        measurement(STATIC, batch(1), {rate: 40.0}),
        measurement("no overlap", batch(1), {rate: 140.0}),
        measurement(DEFAULT, closed_loop(32), {rate: 4000.0}),
        measurement(HTTP, closed_loop(32), {rate: 3600.0, "failed": 0.0}),
        Measurement(part=KERNELS, case="n=8", workload=KERNEL_STEPS, figures={"products: qkv, us": 384.0}),
        Measurement(part=KERNELS, case="qkv, n=8", workload=KERNELS, figures={"us": 12.0}, settings=_PRODUCTS),
    ]
    return GpuResult(
        date="20260101-000000",
        command=["benchmarks/gpu.sh"],
        machine=MACHINE,
        dry=dry,
        settings={"large": MODEL, "levels": [32], "dtype": "bfloat16"},
        environment={"torch": "2.11.0"},
        missing=["flash-attn is not installed"],
        outcomes=[
            PartOutcome(name="bandwidth", status=DONE, seconds=5.0, budget_s=30.0),
            PartOutcome(
                name="fp8", status=FAILED, seconds=5.0, budget_s=30.0, reason="it broke", log="Traceback\nit broke"
            ),
        ],
        measurements=measurements,
    )
