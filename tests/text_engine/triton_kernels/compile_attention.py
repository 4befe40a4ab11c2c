"""Compiles the attention kernels as the backend launches them: `python -m ... 90 bfloat16 128 [window [softcap]]`.

Prints, for each kernel, how many variants several steps took and the most shared memory that one of them has.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from tests.text_engine.triton_kernels.ahead_of_time import compile_only
from tests.text_engine.triton_kernels.paged_step import PagedStep
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.triton_kernels import launch_parameters

STEPS = [
    [(0, 5), (20, 1)],
    [(3, 1), (0, 16), (9, 7), (16, 1)],
    [(0, 1), (0, 33)],
    [(5, 6), (7, 1), (100, 1), (8, 1)],
    [(row, 1) for row in range(16)],
    [(row, 1) for row in range(23)],
    [(40, 1)] * 4,
]
"""Their arrays begin at addresses of many kinds. With one row to decode, the context is split in 8 for this machine;
with two in 4, with three or four in 2, with 16 not at all."""


def inputs_of(step: PagedStep) -> BatchInputs:
    """With the slots behind other numbers, as the runner has them."""
    inputs = step.inputs()
    slots = torch.cat([inputs.position_ids, inputs.slots])[len(inputs.slots) :]
    return dataclasses.replace(inputs, slots=slots)


def main(capability: int, dtype: torch.dtype, dim: int, options: AttentionOptions) -> None:
    launch_parameters._capability = lambda device: divmod(capability, 10)
    variants = compile_only(capability)
    for lengths in STEPS:
        step = PagedStep(lengths, 8, 2, dim, dtype=dtype)
        together = torch.cat([step.query, step.key, step.value], dim=1)
        attention = TritonAttention(step.cache)
        attention.forward(0, *together.split([8, 2, 2], dim=1), attention.prepare(inputs_of(step)), options)
    for name, kernels in variants.items():
        shared = max(kernel.metadata.shared for kernel in kernels)
        print(json.dumps({"kernel": name, "variants": len(kernels), "shared": shared}))


if __name__ == "__main__":
    numbers = [float(argument) for argument in sys.argv[4:]]
    window = int(numbers[0]) if numbers else None
    main(
        int(sys.argv[1]),
        getattr(torch, sys.argv[2]),
        int(sys.argv[3]),
        AttentionOptions(0.1, window or None, *numbers[1:]),
    )
