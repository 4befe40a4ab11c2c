"""RMSNorm of chosen rows: the one norm of a step that is not part of another kernel, before the last product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.row_norm import inverse_rms, row_block


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, index: torch.Tensor | None = None) -> torch.Tensor:
    """[S, hidden]: the rows of `x` [T, hidden] that `index` [S] names, or all of them, normed in float32."""
    num_rows = len(x) if index is None else len(index)
    output = torch.empty((num_rows, x.shape[1]), dtype=x.dtype, device=x.device)
    if num_rows:
        block = row_block(x.shape[1])
        _rms_norm_kernel[(num_rows,)](x, weight, index, output, eps, HIDDEN=x.shape[1], BLOCK=block)
    return output


@triton.jit(do_not_specialize_on_alignment=["index_ptr"])
def _rms_norm_kernel(x_ptr, weight_ptr, index_ptr, output_ptr, eps, HIDDEN: tl.constexpr, BLOCK: tl.constexpr):
    output_row = tl.program_id(0).to(tl.int64)
    row = output_row
    if index_ptr is not None:
        row = tl.load(index_ptr + output_row)
    scale = inverse_rms(x_ptr, row, eps, HIDDEN, BLOCK)
    for start in tl.static_range(0, HIDDEN, BLOCK):  # out of the nearest cache the second time
        columns = start + tl.arange(0, BLOCK)
        inside = columns < HIDDEN
        x = tl.load(x_ptr + row * HIDDEN + columns, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        normed = (x * scale * weight).to(output_ptr.dtype.element_ty)
        tl.store(output_ptr + output_row * HIDDEN + columns, normed, mask=inside)


def rms_norm_reference(
    x: torch.Tensor, weight: torch.Tensor, eps: float, index: torch.Tensor | None = None
) -> torch.Tensor:
    """The same in torch."""
    rows = (x if index is None else x[index]).float()
    return torch.nn.functional.rms_norm(rows, rows.shape[-1:], weight.float(), eps).to(x.dtype)
