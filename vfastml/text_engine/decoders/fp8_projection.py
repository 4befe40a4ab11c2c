"""Products in 8-bit floats on Ada and Hopper: a scale for each output of the weights, which is known, and one for each
token, which is measured. What does not fit into 8 bits is lost relative to the numbers themselves, not to the largest
(e4m3 has four bits of exponent), so that a few large channels of a residual do not cost the others their precision."""

from __future__ import annotations

import torch

from vfastml.errors import UnsupportedError
from vfastml.text_engine.decoders.llama_shape import LlamaShape
from vfastml.text_engine.triton_kernels.quantize import quantize_rows, quantize_rows_reference
from vfastml.text_engine.triton_kernels.silu_mul import silu_mul

_MULTIPLE = 16
"""Of both sizes of a matrix, for torch._scaled_mm."""
_MOST_ERROR = 1e-2
"""Of the product by itself, whose result has eight bits."""


class Fp8Projection:
    """A Projection of rows in bfloat16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """`weight` [out, in] and `bias` [out] on the device; only the quantized weight is kept."""
        rows, scales = quantize_rows_reference(weight)
        self._weight, self._scales = rows.t(), scales.t()
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See Projection. The product is in bfloat16, whose range is that of float32."""
        rows, scales = quantize_rows(x)
        return torch._scaled_mm(
            rows,
            self._weight,
            scale_a=scales,
            scale_b=self._scales,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        """See Projection. The product has no accumulator that could begin with the residual."""
        residual.add_(self(x))
        if self._bias is not None:
            residual.add_(self._bias)

    def silu_mul(self, x: torch.Tensor, *, eps: float, bias: torch.Tensor | None) -> torch.Tensor:
        """See Projection."""
        return silu_mul(self(x), x, eps=eps, dtype=x.dtype, bias=bias)


def check_fp8(shape: LlamaShape, device: torch.device) -> None:
    """Tries a small product. Raises UnsupportedError if the model's matrices do not fit, or if this torch has no such
    product for this device, or a wrong one."""
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    sizes = (shape.hidden_size, queries, queries + 2 * keys, shape.intermediate_size)
    odd = [size for size in sizes if size % _MULTIPLE]
    if odd:
        raise UnsupportedError(f"--quantization fp8 needs sizes that are multiples of {_MULTIPLE}: {odd[0]} is not.")
    try:
        error = _error_of_product(device)
    except (RuntimeError, ValueError) as reason:
        raise UnsupportedError(f"--quantization fp8 cannot be had here: {str(reason).splitlines()[0]}") from reason
    if not error < _MOST_ERROR:
        raise UnsupportedError(f"--quantization fp8 cannot be had here: products are wrong by {error:.1%}.")


def _error_of_product(device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, 64, generator=generator).to(torch.bfloat16).to(device) for size in (3, 32))
    (rows, row_scales), (outputs, output_scales) = quantize_rows_reference(x), quantize_rows_reference(weight)
    expected = (rows.float() * row_scales) @ (outputs.float() * output_scales).t()
    found = Fp8Projection(weight)(x).float()
    return float((found - expected).norm() / expected.norm())
