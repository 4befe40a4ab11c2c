"""Rotary embeddings out of a table that grows."""

from __future__ import annotations

import torch

from vfastml.text_engine.decoders.rope_table import RopeTable, rotate

CPU = torch.device("cpu")
INV_FREQ = 10000.0 ** -(torch.arange(4) / 4)
POSITIONS = torch.tensor([0, 1, 77, 1023, 5000, 9])


def test_pairs_are_turned_by_position_times_frequency() -> None:
    x = torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0))
    pairs = torch.complex(x[..., :4], x[..., 4:])
    angles = (POSITIONS[:, None].float() * INV_FREQ)[:, None]
    turned = pairs * torch.polar(torch.full_like(angles, 0.5), angles)
    table = RopeTable(INV_FREQ, 0.5, torch.float32, CPU)
    torch.testing.assert_close(rotate(x, *table.at(POSITIONS, 5001)), torch.cat((turned.real, turned.imag), dim=-1))


def test_what_was_known_stays_as_it_was_when_the_table_grows() -> None:
    table = RopeTable(INV_FREQ, 1.0, torch.bfloat16, CPU)
    before = [tensor.clone() for tensor in table.at(POSITIONS[:4], 1024)]
    table.at(POSITIONS, 5001)
    for old, new in zip(before, table.at(POSITIONS[:4], 1024), strict=True):
        assert torch.equal(old, new)
