"""Products with a layer's fixed matrices on a GPU."""

from __future__ import annotations

from typing import Protocol

import torch

from vfastml.text_engine.decoders.skinny_tilings import SkinnyTilings
from vfastml.text_engine.triton_kernels.silu_mul import silu_mul
from vfastml.text_engine.triton_kernels.skinny_product import skinny_add, skinny_product, skinny_silu_mul


class Projection(Protocol):
    """x [T, in] -> [T, out], for x that need not be normed: see fold_norm."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Without the bias, in float32 where `x` is float16: a row that is not normed may go beyond its range."""

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        """Adds the product and the bias to `residual` [T, out] in place; `x` must not overlap it."""

    def silu_mul(self, x: torch.Tensor, *, eps: float, bias: torch.Tensor | None) -> torch.Tensor:
        """What silu_mul (silu_mul.py) makes of the product and of `x`, in the dtype of x: [T, out / 2]."""


class PlainProjection:
    """A Projection in the dtype of its weights. `tilings` says which products our own kernel computes; the others are
    cuBLAS's."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """`weight` [out, in] and `bias` [out] on the device."""
        self._weight = weight.t()
        self._bias = bias
        self.tilings = SkinnyTilings()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See Projection."""
        tiling = self.tilings.of(len(x))
        if tiling is not None:
            dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
            return skinny_product(x, self._weight.t(), tiling, dtype=dtype)
        if x.dtype != torch.float16:
            return torch.mm(x, self._weight)
        if x.is_cuda:
            return torch.mm(x, self._weight, out_dtype=torch.float32)
        return x.float() @ self._weight.float()  # torch has it on GPUs alone

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        """See Projection. The sum is part of the product, and is rounded once."""
        tiling = self.tilings.of(len(x))
        if tiling is not None:
            skinny_add(residual, x, self._weight.t(), tiling)
        else:
            residual.addmm_(x, self._weight)
        if self._bias is not None:
            residual.add_(self._bias)

    def silu_mul(self, x: torch.Tensor, *, eps: float, bias: torch.Tensor | None) -> torch.Tensor:
        """See Projection."""
        tiling = self.tilings.of(len(x))
        if tiling is not None:
            return skinny_silu_mul(x, self._weight.t(), tiling, eps=eps, bias=bias)
        return silu_mul(self(x), x, eps=eps, dtype=x.dtype, bias=bias)


def fold_norm(weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """A matrix [out, in] in whose place the norm's weight [in] need not be applied to its input: `weight` itself, each
    of its numbers multiplied in float32 and rounded once."""
    return weight.mul_(norm)  # torch computes so in 16 bits
