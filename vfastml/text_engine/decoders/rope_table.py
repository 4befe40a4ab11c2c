"""Cosines and sines of rotary position embeddings, looked up by position."""

from __future__ import annotations

import torch


class RopeTable:
    """Made once, and made anew when a text is longer than all before it."""

    def __init__(self, inv_freq: torch.Tensor, scaling: float, dtype: torch.dtype, device: torch.device) -> None:
        """`inv_freq` [dim / 2] is how far each pair turns from one position to the next, `scaling` the factor of cosine
        and sine."""
        self._inv_freq = inv_freq.to(device)
        self._scaling = scaling
        self._dtype = dtype
        self._grow(1024)

    def at(self, position_ids: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [T, 1, dim], of the pairs (i, i + dim / 2), the first sine of each negated; all positions
        are below `end`."""
        if end > len(self._cos):
            self._grow(2 * end)
        return self._cos[position_ids], self._sin[position_ids]

    def _grow(self, num_positions: int) -> None:
        positions = torch.arange(num_positions, dtype=torch.float32, device=self._inv_freq.device)
        angles = torch.outer(positions, self._inv_freq)[:, None]
        cos, sin = angles.cos() * self._scaling, angles.sin() * self._scaling
        self._cos = torch.cat((cos, cos), dim=-1).to(self._dtype)
        self._sin = torch.cat((-sin, sin), dim=-1).to(self._dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [T, heads, dim] turned by what RopeTable.at gave."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


def rope_angles(inv_freq: torch.Tensor, scaling: float, num_positions: int, device: torch.device) -> torch.Tensor:
    """[num_positions, 2, dim / 2] float32: the cosines of each position, then its sines, computed as transformers does.
    For a kernel, which looks positions up that the host does not know."""
    positions = torch.arange(num_positions, dtype=torch.float32, device=device)
    angles = torch.outer(positions, inv_freq.to(device))
    return torch.stack((angles.cos() * scaling, angles.sin() * scaling), dim=1)
