"""Compiles the layer kernels as the decoder launches them: `python -m ... 90 bfloat16`.

Prints, for each kernel, how many variants steps of several sizes took, and the widest load and store of any.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch

from tests.text_engine.triton_kernels.ahead_of_time import compile_only
from tests.text_engine.triton_kernels.layer_shapes import LayerShape
from vfastml.text_engine.triton_kernels.quantize import quantize_rows
from vfastml.text_engine.triton_kernels.rms_norm import rms_norm
from vfastml.text_engine.triton_kernels.rope_write import rope_write
from vfastml.text_engine.triton_kernels.silu_mul import silu_mul

NUM_TOKENS = (1, 2, 7, 16, 33, 700, 1024)
SHAPE = LayerShape(4096, 14336, 32, 8, 128)


def launch_all(num_tokens: int, dtype: torch.dtype, capability: int) -> None:
    """With the whole numbers of a step one behind the other, as the runner has them."""
    width = (SHAPE.num_heads + 2 * SHAPE.num_kv_heads) * SHAPE.head_dim
    product = torch.float32 if dtype == torch.float16 else dtype
    x = torch.empty(num_tokens, SHAPE.hidden, dtype=dtype)
    positions, slots, index = torch.zeros(3 * num_tokens, dtype=torch.int64).split(num_tokens)
    keys, values = torch.empty(2, 4, 16, SHAPE.num_kv_heads, SHAPE.head_dim, dtype=dtype)
    for bias, head_norms in ((None, None), (torch.empty(width, dtype=dtype), torch.empty(2, 128, dtype=dtype))):
        rope_write(
            torch.empty(num_tokens, width, dtype=product),
            x,
            position_ids=positions,
            slots=slots,
            angles=torch.empty(64, 2, 64),
            keys=keys,
            values=values,
            eps=1e-5,
            bias=bias,
            head_norms=head_norms,
        )
    silu_mul(torch.empty(num_tokens, 2 * SHAPE.inter, dtype=product), x, eps=1e-5, dtype=dtype)
    rms_norm(x, torch.empty(SHAPE.hidden, dtype=dtype), 1e-5, index)
    if capability >= 89:
        quantize_rows(x)


def widest(kernels: list[Any], instruction: str) -> int:
    """Bits that a thread loads or stores at once."""
    found = re.findall(rf"{instruction}\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", "".join(k.asm["ptx"] for k in kernels))
    return max(int(count or 1) * int(bits) for count, bits in found)


def main(capability: int, dtype: torch.dtype) -> None:
    variants = compile_only(capability)
    for num_tokens in NUM_TOKENS:
        launch_all(num_tokens, dtype, capability)
    for name, kernels in variants.items():
        loads, stores = widest(kernels, "ld"), widest(kernels, "st")
        print(json.dumps({"kernel": name, "variants": len(kernels), "load": loads, "store": stores}))


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]))
