"""Decode rows whose contexts are split between programs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.text_engine.triton_kernels.paged_step import PagedStep
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.triton_paged import TritonAttention, TritonMeta
from vfastml.text_engine.triton_kernels.split_kv import num_splits_for

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def check(step: PagedStep, num_splits: int, options: AttentionOptions) -> None:
    attention = TritonAttention(step.cache)
    meta = dataclasses.replace(attention.prepare(step.inputs()), num_splits=num_splits)
    new = (tensor.to(step.device) for tensor in (step.query, step.key, step.value))
    output = attention.forward(0, *new, meta, options).cpu().float()
    step.assert_close(output, step.expected(options))


@pytest.mark.parametrize("num_splits", [1, 2, 8, 32])
def test_any_number_of_splits(num_splits: int, device: torch.device) -> None:
    """More than the short rows have tiles, too."""
    check(PagedStep([(299, 1), (0, 1), (64, 1)], device=device), num_splits, AttentionOptions(0.125))


@pytest.mark.parametrize("window", [1, 40, 150, 1000])
def test_only_the_window_is_split(window: int, device: torch.device) -> None:
    check(PagedStep([(299, 1), (20, 1)], device=device), 4, AttentionOptions(0.125, window))


def test_dims_that_are_no_powers_of_two_with_softcap(device: torch.device) -> None:
    check(PagedStep([(150, 1)], 3, 1, 80, 48, device=device), 4, AttentionOptions(0.1, softcap=20.0))


def test_rows_of_several_tokens_are_left_to_the_other_kernel(device: torch.device) -> None:
    step = PagedStep([(100, 1), (30, 5), (80, 1), (0, 9)], num_heads=2, device=device)
    check(step, 4, AttentionOptions(0.125))


def test_a_long_context(device: torch.device) -> None:
    check(PagedStep([(1999, 1)], num_heads=4, key_dim=128, device=device), 16, AttentionOptions(128**-0.5))


@pytest.mark.slow
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(32, 8), (28, 4)])
def test_32k_tokens(num_heads: int, num_kv_heads: int, device: torch.device) -> None:
    step = PagedStep([(32_767, 1)], num_heads, num_kv_heads, 128, device=device)
    check(step, 32, AttentionOptions(128**-0.5))


class StaticStep:
    """Tensors of one size for all decode steps of up to `num_rows` rows, as a CUDA graph has them."""

    def __init__(self, num_rows: int, num_blocks: int, device: torch.device) -> None:
        self.device = device
        self.query_starts = torch.arange(num_rows + 1, dtype=torch.int32, device=device)
        self.slots = torch.full((num_rows,), -1, device=device)
        self.context_lens = torch.zeros(num_rows, dtype=torch.int32, device=device)
        self.block_starts = torch.zeros(num_rows + 1, dtype=torch.int32, device=device)
        self.block_tables = torch.zeros(num_blocks, dtype=torch.int32, device=device)

    def meta(self, attention: TritonAttention) -> TritonMeta:
        return attention.decode_meta(
            self.slots, self.query_starts, self.context_lens, self.block_starts, self.block_tables
        )

    def fill(self, step: PagedStep) -> None:
        inputs = step.inputs()
        num_rows = len(inputs.context_lens)
        self.slots.fill_(-1)[:num_rows] = inputs.slots
        self.context_lens.zero_()[:num_rows] = torch.from_numpy(inputs.context_lens)
        self.block_starts.fill_(int(inputs.block_starts[-1]))[: num_rows + 1] = torch.from_numpy(inputs.block_starts)
        self.block_tables[: len(inputs.block_tables)] = torch.from_numpy(inputs.block_tables)

    def padded(self, numbers: torch.Tensor) -> torch.Tensor:
        rows = numbers.new_zeros(len(self.slots), *numbers.shape[1:])
        rows[: len(numbers)] = numbers
        return rows.to(self.device)


@pytest.mark.parametrize("num_rows", [4, 16])
def test_static_tensors_with_other_contents(
    num_rows: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made for one step holds for the next ones: nothing of the contents is in it. 16 rows are not split."""
    monkeypatch.setattr("vfastml.text_engine.attention.triton_paged.num_multiprocessors", lambda device: 8)
    static = StaticStep(num_rows, num_blocks=64, device=device)
    options = AttentionOptions(0.125)
    meta = None
    for seed, lengths in enumerate([[(90, 1), (3, 1), (40, 1)], [(0, 1)], [(7, 1), (150, 1), (64, 1), (1, 1)]]):
        step = PagedStep(lengths, device=device, seed=seed)
        attention = TritonAttention(step.cache)
        meta = meta or static.meta(attention)
        static.fill(step)
        new = (static.padded(tensor) for tensor in (step.query, step.key, step.value))
        output = attention.forward(0, *new, meta, options).cpu()
        step.assert_close(output[: len(lengths)], step.expected(options))
        assert output[len(lengths) :].eq(0).all()
        assert (meta.num_splits > 1) == (num_rows == 4)


def test_splits_fill_the_gpu_and_no_more() -> None:
    assert num_splits_for(1, 8, 132) == 32
    assert num_splits_for(1, 1, 132) == 32
    assert num_splits_for(8, 8, 132) == 4
    assert num_splits_for(16, 8, 132) == 2
    assert num_splits_for(32, 8, 132) == 1
    assert num_splits_for(512, 8, 132) == 1
    assert num_splits_for(0, 8, 132) == 32


def test_splits_are_a_power_of_two() -> None:
    for num_rows in range(1, 300):
        for num_kv_heads in (1, 2, 3, 8, 32):
            splits = num_splits_for(num_rows, num_kv_heads, 132)
            assert splits.bit_count() == 1
            assert splits == 1 or splits * num_rows * num_kv_heads <= 2 * 132
