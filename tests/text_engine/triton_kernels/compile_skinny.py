"""Compiles the products of a few rows as the decoder launches them, in all tilings: `python -m ... 90 bfloat16`.

Prints for each kernel and tiling how many variants models and numbers of rows took, a program's shared memory, how many
bytes a thread has copied at once, and whether matrix units multiply.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch

from tests.text_engine.triton_kernels.ahead_of_time import compile_only
from tests.text_engine.triton_kernels.layer_shapes import LayerShape
from vfastml.text_engine.triton_kernels.skinny_product import (
    MOST_ROWS,
    TILINGS,
    Tiling,
    skinny_add,
    skinny_product,
    skinny_silu_mul,
)

SHAPES = (LayerShape(4096, 14336, 32, 8, 128), LayerShape(576, 1536, 9, 3, 64))


def launch_all(shape: LayerShape, num_rows: int, tiling: Tiling, dtype: torch.dtype) -> None:
    """The products of a layer. Nothing is read or written: the tensors take no memory."""
    wide = torch.float32 if dtype == torch.float16 else dtype
    heads = shape.num_heads * shape.head_dim

    def matrix(rows: int, width: int) -> torch.Tensor:
        return torch.empty((rows, width), dtype=dtype)

    x = matrix(num_rows, shape.hidden)
    skinny_product(x, matrix(heads + 2 * shape.num_kv_heads * shape.head_dim, shape.hidden), tiling, dtype=wide)
    skinny_add(x, matrix(num_rows, heads), matrix(shape.hidden, heads), tiling)
    skinny_silu_mul(x, matrix(2 * shape.inter, shape.hidden), tiling, eps=1e-5)


def copied(kernels: list[Any]) -> int:
    """Bytes at once, the widest of the copies into shared memory."""
    found = re.findall(r"cp\.async\.c[ag]\.shared\.global \[.*?\], \[.*?\], (0x\w+|\d+)", ptx_of(kernels))
    return max((int(size, 0) for size in found), default=0)


def ptx_of(kernels: list[Any]) -> str:
    return "".join(kernel.asm["ptx"] for kernel in kernels)


def main(capability: int, dtype: torch.dtype) -> None:
    variants = compile_only(capability)
    for tiling in TILINGS:
        variants.clear()
        for shape in SHAPES:
            for num_rows in range(1, MOST_ROWS + 1):
                launch_all(shape, num_rows, tiling, dtype)
        for name, kernels in variants.items():
            shared = max(kernel.metadata.shared for kernel in kernels)
            line = {"kernel": name, "tiling": tiling, "variants": len(kernels), "shared": shared}
            print(json.dumps({**line, "copied": copied(kernels), "is_matrix": "mma" in ptx_of(kernels)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]))
