"""The products of a few rows are compiled for GPUs, which needs none. In float32 they are never launched there: see
prepared_runner.py."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.text_engine.triton_kernels.compiler_process import compiled_by
from vfastml.text_engine.triton_kernels.skinny_product import TILINGS

KIB = 1024
SHARED_MEMORY = {80: 163 * KIB, 89: 99 * KIB, 90: 227 * KIB, 100: 227 * KIB, 120: 99 * KIB}
PRODUCT, SILU_MUL = "_product_kernel", "_silu_mul_kernel"


def compiled(folder: Path, capability: int, dtype: str) -> dict[str, list[dict[str, Any]]]:
    """By the kernel, what its tilings came to."""
    tilings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in compiled_by("compile_skinny", folder, capability, dtype):
        tilings[line["kernel"]].append(line)
    return tilings


def test_all_tilings_run_on_a_hopper(tmp_path: Path) -> None:
    """With matrix units, in one variant for all models and numbers of rows. Weights are copied 16 bytes at a time, by
    instructions that do not wait for them."""
    kernels = compiled(tmp_path, 90, "bfloat16")
    assert {name: [each["tiling"] for each in tilings] for name, tilings in kernels.items()} == {
        PRODUCT: [list(tiling) for tiling in TILINGS],
        SILU_MUL: [list(tiling) for tiling in TILINGS],
    }
    found = [each for tilings in kernels.values() for each in tilings]
    # One that writes a product, and one that adds it.
    assert all(each["variants"] == {PRODUCT: 2, SILU_MUL: 1}[each["kernel"]] for each in found)
    assert all(each["shared"] <= SHARED_MEMORY[90] for each in found)
    assert all(each["copied"] == 16 and each["is_matrix"] for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_some_tilings_run_on_every_gpu(capability: int, dtype: str, tmp_path: Path) -> None:
    """Those that do not are passed over when they are timed."""
    kernels = compiled(tmp_path, capability, dtype)
    assert set(kernels) == {PRODUCT, SILU_MUL}
    for tilings in kernels.values():
        assert len(tilings) == len(TILINGS)
        assert min(each["shared"] for each in tilings) <= SHARED_MEMORY[capability]
        assert all(each["is_matrix"] for each in tilings)
