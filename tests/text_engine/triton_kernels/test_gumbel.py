"""The noise is Gumbel's, finite whatever the bits are, and the same for a token wherever it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from tests.text_engine.triton_kernels.gumbel_oracle import gumbel, philox
from vfastml.text_engine.triton_kernels.gumbel import _gumbel, gumbel_in_order, gumbel_of

SEED = 0x1234567890ABCDEF


@triton.jit
def _in_order(out, seed, first, SIZE: tl.constexpr):
    tl.store(out + tl.arange(0, SIZE), gumbel_in_order(seed, first, SIZE))


@triton.jit
def _of(out, seed, tokens, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, gumbel_of(seed, tl.load(tokens + place)))


@triton.jit
def _of_bits(out, bits, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, _gumbel(tl.load(bits + place)))


def test_philox_of_the_oracle_is_the_published_one() -> None:
    assert philox(0, np.array([0]))[0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed", [0, SEED, 2**63 - 1])
def test_noise_is_that_of_the_oracle(device: torch.device, seed: int) -> None:
    expected = torch.tensor(gumbel(seed, 6144), dtype=torch.float32)
    out = torch.empty(2048, device=device)
    _in_order[(1,)](out, seed, 4096, SIZE=2048)
    assert torch.allclose(out.cpu(), expected[4096:], rtol=1e-5, atol=1e-5)


def test_token_has_the_same_noise_in_any_order(device: torch.device) -> None:
    ordered, shuffled = torch.empty(1024, device=device), torch.empty(1024, device=device)
    tokens = torch.randperm(1024, generator=torch.Generator().manual_seed(0)).int().to(device)
    _in_order[(1,)](ordered, SEED, 0, SIZE=1024)
    _of[(1,)](shuffled, SEED, tokens, SIZE=1024)
    assert torch.equal(ordered[tokens.long()], shuffled)


def test_noise_is_finite_and_falls_with_its_bits(device: torch.device) -> None:
    numbers = [0, 1, 2, 2**24, 2**25 - 1, 2**25, 2**25 + 2**10, 2**31 - 1, 2**31, 2**32 - 2**9, 2**32 - 129, 2**32 - 1]
    numbers += range(2**25 - 2, 2**25 + 2)
    bits = torch.tensor(sorted(numbers), dtype=torch.int64).to(torch.int32).to(device)
    out = torch.empty(len(bits), device=device)
    _of_bits[(1,)](out, bits, SIZE=16)
    noise = out.double().cpu().numpy()
    assert np.isfinite(noise).all()
    assert (np.diff(noise) <= 1e-6).all()
    u = (np.array(sorted(numbers)) + 0.5) / 2.0**32
    sound = u < 0.9  # the last float32 below 1 are far apart
    assert np.allclose(noise[sound], -np.log(-np.log1p(-u[sound])), rtol=1e-6, atol=1e-6)
    assert noise[0] > 22
    assert noise[-1] < -2.8


def test_noise_has_the_distribution_of_gumbel(device: torch.device) -> None:
    out = torch.empty(65536, device=device)
    _in_order[(1,)](out, SEED, 0, SIZE=65536)
    uniform = torch.exp(-torch.exp(-out.double().cpu()))
    counts = torch.histc(uniform, bins=64, min=0, max=1)
    assert ((counts - 1024) ** 2 / 1024).sum() < 103.5  # chi-square, 63 degrees: 1 in 1,000
