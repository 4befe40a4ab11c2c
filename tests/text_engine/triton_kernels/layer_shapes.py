"""What the layers of well-known models look like to a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LayerShape:
    """The numbers of one layer."""

    hidden: int
    inter: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    has_bias: bool = False
    has_head_norms: bool = False


SHAPES = {
    "llama 8B and mistral 7B": LayerShape(4096, 14336, 32, 8, 128),
    "qwen2 0.5B": LayerShape(896, 4864, 14, 2, 64, has_bias=True),
    "qwen3 0.6B": LayerShape(1024, 3072, 16, 8, 128, has_head_norms=True),
    "smollm2 135M": LayerShape(576, 1536, 9, 3, 64),
    "odd": LayerShape(60, 100, 3, 1, 20, has_bias=True, has_head_norms=True),
}


def normal(*shape: int, seed: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The same numbers on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """What is not written stays NaN."""
    return tensor.fill_(float("nan"))
