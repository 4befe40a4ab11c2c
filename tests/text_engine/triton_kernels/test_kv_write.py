"""The kernel that writes keys and values, against KVCache.write."""

from __future__ import annotations

import pytest
import torch

from vfastml.text_engine.kv_cache import KVCache, KVShape
from vfastml.text_engine.triton_kernels.kv_write import write_kv

NUM_BLOCKS = 6
BLOCK = 4


def new_cache(shape: KVShape, dtype: torch.dtype, device: torch.device) -> KVCache:
    return KVCache([shape], NUM_BLOCKS, BLOCK, dtype, device)


def random_slots(count: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randperm(NUM_BLOCKS * BLOCK, generator=generator)[:count].to(device)


def check(key: torch.Tensor, value: torch.Tensor, device: torch.device) -> None:
    shape = KVShape(key.shape[1], key.shape[2], value.shape[2])
    slots = random_slots(len(key), device)
    expected, written = (new_cache(shape, key.dtype, device) for _ in range(2))
    expected.write(0, slots, key, value)
    write_kv(written.keys[0], written.values[0], slots, key, value)
    assert torch.equal(written.keys[0], expected.keys[0])
    assert torch.equal(written.values[0], expected.values[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("num_heads", "key_dim", "value_dim"), [(8, 128, 128), (3, 64, 64), (1, 80, 24), (2, 8, 96)])
def test_what_is_written_is_what_the_cache_writes(
    num_heads: int, key_dim: int, value_dim: int, dtype: torch.dtype, device: torch.device
) -> None:
    check(
        torch.randn(5, num_heads, key_dim, device=device).to(dtype),
        torch.randn(5, num_heads, value_dim, device=device).to(dtype),
        device,
    )


def test_views_of_a_larger_tensor(device: torch.device) -> None:
    together = torch.randn(5, 12, 64, device=device)
    heads_first = torch.randn(3, 5, 64, device=device).transpose(0, 1)
    check(together[:, 6:9], together[:, 9:], device)
    check(heads_first, together[:, 9:], device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_not_finite_is_stored_as_zero(dtype: torch.dtype, device: torch.device) -> None:
    key = torch.randn(4, 2, 8, device=device).to(dtype)
    key[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    key[1, 1, 5] = torch.finfo(dtype).max
    value = -key.flip(0)
    check(key, value, device)


def test_what_the_caches_dtype_cannot_hold_is_stored_as_zero(device: torch.device) -> None:
    cache = new_cache(KVShape(1, 8, 8), torch.float16, device)
    key = torch.full((1, 1, 8), 1e6, device=device)
    key[..., 3:] = 2.5
    write_kv(cache.keys[0], cache.values[0], torch.tensor([9], device=device), key, -key)
    assert cache.keys[0].flatten(0, 1)[9, 0].tolist() == [0.0] * 3 + [2.5] * 5
    assert cache.values[0].flatten(0, 1)[9, 0].tolist() == [0.0] * 3 + [-2.5] * 5


def test_padding_is_not_written(device: torch.device) -> None:
    cache = new_cache(KVShape(2, 8, 8), torch.float32, device)
    key = torch.ones(3, 2, 8, device=device)
    write_kv(cache.keys[0], cache.values[0], torch.tensor([-1, 5, -1], device=device), key, key)
    for layer in (cache.keys[0], cache.values[0]):
        assert layer.flatten(0, 1)[5].eq(1).all()
        assert int(layer.count_nonzero()) == 2 * 8
