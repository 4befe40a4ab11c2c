"""A product with fixed weights, which are put into the order that the processor reads fastest."""

from __future__ import annotations

import torch
from torch.nn import functional

_TYPICAL_ROWS = 32
"""The order of packed weights is chosen for a number of rows. This one is good for one row and for hundreds alike."""


class Linear:
    """x [T, in] -> [T, out]. Each row comes out the same beside any others, if T is at least two: oneDNN sums up a lone
    row in another order."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, device: torch.device) -> None:
        """Packs on a CPU, where torch can: it takes half the time, and a copy of the weight; keep no other."""
        self._packed = device.type == "cpu" and packs(weight.dtype)
        self._bias = None if bias is None else bias.to(device)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
        else:
            self._weight = weight.to(device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x must be contiguous."""
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")  # type: ignore[no-any-return]
        return functional.linear(x, self._weight, self._bias)


def packs(dtype: torch.dtype) -> bool:
    """Whether torch packs weights of this type on this processor."""
    if not torch._C._has_mkldnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
