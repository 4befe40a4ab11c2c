"""The attention kernels are compiled for GPUs, which needs none: the interpreter takes much that the compiler refuses,
and knows nothing of shared memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text_engine.triton_kernels.compiler_process import compiled_by

KIB = 1024
SHARED_MEMORY = {80: 163 * KIB, 89: 99 * KIB, 90: 227 * KIB, 100: 227 * KIB, 120: 99 * KIB}


def compiled(folder: Path, *arguments: object) -> dict[str, dict[str, int]]:
    return {line.pop("kernel"): line for line in compiled_by("compile_attention", folder, *arguments)}


def test_steps_of_other_sizes_need_no_other_kernels(tmp_path: Path) -> None:
    """Whatever their rows are and wherever their arrays begin: compiling takes seconds, in the middle of serving."""
    kernels = compiled(tmp_path, 90, "bfloat16", 128)
    variants = {name: kernel["variants"] for name, kernel in kernels.items()}
    # With and without splits; and in 2, 4 and 8.
    assert variants == {"_write_kernel": 1, "_prefill_kernel": 1, "_decode_kernel": 2, "_reduce_kernel": 3}
    assert max(kernel["shared"] for kernel in kernels.values()) <= SHARED_MEMORY[90]


LAYERS: list[tuple[object, ...]] = [
    ("float16", 64),
    ("bfloat16", 64, 100),
    ("bfloat16", 80),
    ("bfloat16", 128, 4096),
    ("float32", 64),
    ("float32", 128),
    ("float32", 256),
]
"""dtype, head dim, window and softcap."""
LARGE_LAYERS: list[tuple[object, ...]] = [("bfloat16", 128), ("bfloat16", 256, 512, 30.0)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "layer"),
    [*((90, layer) for layer in LAYERS), *((gpu, layer) for gpu in SHARED_MEMORY for layer in LARGE_LAYERS)],
)
def test_layers_fit_into_gpus(layer: tuple[object, ...], capability: int, tmp_path: Path) -> None:
    kernels = compiled(tmp_path, capability, *layer)
    assert len(kernels) == 4
    assert max(kernel["shared"] for kernel in kernels.values()) <= SHARED_MEMORY[capability]
