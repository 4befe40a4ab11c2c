"""TritonAttention: what it makes of a step, and how often it launches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.text_engine.triton_kernels.paged_step import PagedStep
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.triton_kernels import kv_write, paged_attention, split_kv

OPTIONS = AttentionOptions(0.125)


class CountedKernel:
    """Passes launches on."""

    def __init__(self, kernel: Any, name: str, launches: Counter[str]) -> None:
        self._kernel = kernel
        self._name = name
        self._launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self._launches[self._name] += 1
        return self._kernel[grid]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of our kernels, by name."""
    counts: Counter[str] = Counter()
    for module, name in [
        (kv_write, "_write_kernel"),
        (paged_attention, "_prefill_kernel"),
        (split_kv, "_decode_kernel"),
        (split_kv, "_reduce_kernel"),
    ]:
        monkeypatch.setattr(module, name, CountedKernel(getattr(module, name), name, counts))
    return counts


@pytest.mark.parametrize(
    ("lengths", "kernels"),
    [
        ([(0, 5), (3, 2)], ["_prefill_kernel"]),
        ([(70, 1)], ["_decode_kernel", "_reduce_kernel"]),
        ([(row, 1) for row in range(17)], ["_decode_kernel"]),
        ([(70, 1), (0, 3)], ["_prefill_kernel", "_decode_kernel", "_reduce_kernel"]),
    ],
)
def test_launches_of_a_layer(
    lengths: list[tuple[int, int]],
    kernels: list[str],
    launches: Counter[str],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vfastml.text_engine.attention.triton_paged.num_multiprocessors", lambda device: 8)
    step = PagedStep(lengths, num_heads=1, device=device)
    step.attend(OPTIONS)
    assert launches == Counter(["_write_kernel", *kernels])


def test_attend_writes_nothing(launches: Counter[str], device: torch.device) -> None:
    step = PagedStep([(20, 1)], device=device)
    attention = TritonAttention(step.cache)
    meta = attention.prepare(step.inputs())
    attention.attend(0, step.query.to(device), meta, OPTIONS)
    assert launches["_write_kernel"] == 0
    assert launches["_decode_kernel"] == 1


def test_a_step_goes_to_the_device_in_one_copy(device: torch.device) -> None:
    step = PagedStep([(20, 1), (0, 5), (9, 3)], device=device)
    inputs = step.inputs()
    meta = TritonAttention(step.cache).prepare(inputs)
    arrays = (meta.query_starts, meta.context_lens, meta.block_starts, meta.block_tables)
    assert len({array.untyped_storage().data_ptr() for array in arrays}) == 1
    expected = (inputs.query_starts, inputs.context_lens, inputs.block_starts, inputs.block_tables)
    for array, numbers in zip(arrays, expected, strict=True):
        assert (array.dtype, array.device) == (torch.int32, device)
        assert array.tolist() == numbers.tolist()
    assert meta.slots is inputs.slots
    assert (meta.num_rows, meta.max_query_len, meta.num_decodes) == (3, 5, 1)


def test_splits_of_a_mixed_step_are_those_of_its_decode_rows(device: torch.device) -> None:
    decode = [(20, 1), (300, 1)]
    step = PagedStep([*decode, *[(0, 2)] * 40], device=device)
    attention = TritonAttention(step.cache)
    alone = PagedStep(decode, device=device)
    assert attention.prepare(step.inputs()).num_splits == attention.prepare(alone.inputs()).num_splits > 1


def test_a_step_is_moved_to_another_device_once(device: torch.device) -> None:
    """`meta` stands for another GPU."""
    away = torch.device("meta")
    step = PagedStep([(20, 1), (0, 5)], device=device)
    meta = TritonAttention(step.cache).prepare(step.inputs())
    assert meta.on(device) is meta
    assert not meta.elsewhere
    moved = meta.on(away)
    assert moved is meta.on(away)
    arrays = (moved.slots, moved.query_starts, moved.context_lens, moved.block_starts, moved.block_tables)
    assert {array.device for array in arrays} == {away}
    assert (moved.num_rows, moved.max_query_len, moved.num_decodes) == (2, 5, 1)
    assert moved.num_splits == meta.num_splits


def test_layers_of_other_shapes_share_a_step(device: torch.device) -> None:
    step = PagedStep([(20, 1), (3, 4)], num_heads=2, device=device)
    other = PagedStep([(20, 1), (3, 4)], num_heads=4, num_kv_heads=2, key_dim=32, device=device)
    attention = TritonAttention(step.cache)
    meta = attention.prepare(step.inputs())
    step.cache.keys += other.cache.keys
    step.cache.values += other.cache.values
    for layer, own in enumerate((step, other)):
        new = (tensor.to(device) for tensor in (own.query, own.key, own.value))
        own.assert_close(attention.forward(layer, *new, meta, OPTIONS).cpu(), own.expected(OPTIONS))
