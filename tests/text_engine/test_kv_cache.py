"""Writing, copying and sizing of the KV cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vfastml.text_engine import kv_cache
from vfastml.text_engine.kv_cache import KVCache, KVShape, bytes_per_block, free_memory

SHAPES = [KVShape(2, 3, 5), KVShape(1, 4, 4)]
CPU = torch.device("cpu")
GIB = 1 << 30


def numbered_cache() -> KVCache:
    """Each block is full of its own number."""
    cache = KVCache(SHAPES, num_blocks=6, block_size=4, dtype=torch.float32, device=CPU)
    for tensor in (*cache.keys, *cache.values):
        tensor.copy_(torch.arange(6.0)[:, None, None, None].expand_as(tensor))
    return cache


def numbers(cache: KVCache) -> list[float]:
    """The number that each block is full of, in all layers."""
    rows = {tuple(tensor[:, 0, 0, 0].tolist()) for tensor in (*cache.keys, *cache.values)}
    assert all((tensor == tensor[:, :1, :1, :1]).all() for tensor in (*cache.keys, *cache.values))
    assert len(rows) == 1
    return list(rows.pop())


@pytest.mark.rule("S11")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_zeroed_and_as_large_as_was_said(dtype: torch.dtype) -> None:
    cache = KVCache(SHAPES, num_blocks=3, block_size=4, dtype=dtype, device=CPU)
    assert [tuple(keys.shape) for keys in cache.keys] == [(3, 4, 2, 3), (3, 4, 1, 4)]
    assert [tuple(values.shape) for values in cache.values] == [(3, 4, 2, 5), (3, 4, 1, 4)]
    assert not any(tensor.any() for tensor in (*cache.keys, *cache.values))
    size = sum(tensor.numel() * tensor.itemsize for tensor in (*cache.keys, *cache.values))
    assert size == 3 * bytes_per_block(SHAPES, 4, dtype)


def test_write_puts_tokens_into_their_slots() -> None:
    cache = KVCache(SHAPES, num_blocks=3, block_size=4, dtype=torch.float32, device=CPU)
    key, value = torch.rand(2, 2, 3), torch.rand(2, 2, 5)
    cache.write(0, torch.tensor([9, 2]), key, value)
    assert torch.equal(cache.keys[0][2, 1], key[0])
    assert torch.equal(cache.keys[0][0, 2], key[1])
    assert torch.equal(cache.values[0][2, 1], value[0])
    assert int(cache.keys[0].count_nonzero()) == key.numel()
    assert not cache.keys[1].any()


def test_each_layer_lies_where_it_computes() -> None:
    """`meta` stands for another GPU."""
    meta = torch.device("meta")
    cache = KVCache([KVShape(2, 3, 5, meta), KVShape(1, 4, 4)], 3, 4, torch.float32, CPU)
    assert [keys.device for keys in cache.keys] == [values.device for values in cache.values] == [meta, CPU]
    cache.copy_blocks([(0, 1)])
    cache.write(0, torch.tensor([2], device=meta), torch.ones(1, 2, 3, device=meta), torch.ones(1, 2, 5, device=meta))


@pytest.mark.rule("S11")
def test_what_overflowed_does_not_lie_in_wait_for_the_next_sequence() -> None:
    cache = KVCache(SHAPES, num_blocks=3, block_size=4, dtype=torch.float16, device=CPU)
    bad = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=torch.float16)
    cache.write(0, torch.tensor([5]), bad.expand(1, 2, 3), bad[:1].expand(1, 2, 5))
    assert not cache.keys[0].any()
    assert not cache.values[0].any()


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        ([(1, 4)], [0, 1, 2, 3, 1, 5]),
        ([(1, 4), (1, 5)], [0, 1, 2, 3, 1, 1]),
        ([(1, 4), (2, 1)], [0, 2, 2, 3, 1, 5]),  # block 1 is given to another as soon as it has been read
    ],
)
def test_copies_read_what_was_there_before(copies: list[tuple[int, int]], expected: list[int]) -> None:
    cache = numbered_cache()
    cache.copy_blocks(copies)
    assert numbers(cache) == expected


def control_group(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory_max": f"{3 * GIB}\n", "memory_current": f"{GIB}\n", "memory_stat": "anon 5\n"}, 2 * GIB),
        ({"memory_max": "100\n", "memory_current": "90\n", "memory_stat": "anon 50\ninactive_file 40\n"}, 50),
        ({"memory_max": "100\n", "memory_current": "190\n", "memory_stat": ""}, 0),
    ],
)
def test_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(kv_cache, "_CONTROL_GROUP", control_group(tmp_path, **files))
    monkeypatch.setattr(kv_cache.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))
    assert free_memory() == expected


@pytest.mark.parametrize("files", [{}, {"memory_max": "max\n", "memory_current": "7\n", "memory_stat": ""}])
def test_without_a_limit_the_machine_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    monkeypatch.setattr(kv_cache, "_CONTROL_GROUP", control_group(tmp_path, **files))
    monkeypatch.setattr(kv_cache.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))
    assert free_memory() == 64 * GIB
