"""The layer kernels are compiled for GPUs, which needs none: the interpreter takes much that the compiler refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text_engine.triton_kernels.compiler_process import compiled_by

OF_FP8 = "_quantize_kernel"


def compiled(folder: Path, capability: int, dtype: str) -> dict[str, dict[str, int]]:
    return {line.pop("kernel"): line for line in compiled_by("compile_layers", folder, capability, dtype)}


def test_steps_of_other_sizes_need_no_other_kernels(tmp_path: Path) -> None:
    """Whatever their tokens are and wherever their numbers begin: compiling takes seconds, in the middle of serving.
    And 16 bytes are loaded and stored at once."""
    kernels = compiled(tmp_path, 90, "bfloat16")
    variants = {name: kernel["variants"] for name, kernel in kernels.items()}
    # With and without biases and norms of heads, each for few tokens and for many.
    assert variants == {"_rope_write_kernel": 4, "_silu_mul_kernel": 1, "_rms_norm_kernel": 1, OF_FP8: 1}
    assert {(kernel["load"], kernel["store"]) for kernel in kernels.values()} == {(128, 128)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
def test_they_are_compiled_for_all_gpus(capability: int, dtype: str, tmp_path: Path) -> None:
    assert len(compiled(tmp_path, capability, dtype)) == (4 if capability >= 89 else 3)
