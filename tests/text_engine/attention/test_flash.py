"""The backends over flash kernels against sdpa: through fakes of the packages, and on a GPU the packages themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.text_engine.attention.fake_flash import FakeFlash, FakeFlash3, FakeVarlen
from tests.text_engine.attention.random_steps import RandomStep, rows_of
from vfastml.text_engine.attention.flash import PAGE_SIZE, FlashAttention2, FlashAttention3, flash_attention
from vfastml.text_engine.attention.kind import AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.attention.varlen import VarlenAttention, varlen_attention
from vfastml.text_engine.kv_cache import KVShape

TOLERANCE = 2e-2
KINDS = ("prefill", "chunks", "decode", "mixed")


def faked(name: str) -> tuple[AttentionKind, list[dict[str, Any]]]:
    """The backend over a fake, and what that is called with."""
    if name == "varlen":
        varlen = FakeVarlen()
        return AttentionKind(
            "varlen", PAGE_SIZE, lambda cache: VarlenAttention(cache, varlen.varlen_attn)
        ), varlen.calls
    if name == "flash 3":
        third = FakeFlash3()
        on_third = lambda cache: FlashAttention3(cache, third.flash_attn_with_kvcache)  # noqa: E731
        return AttentionKind("flash", 16, on_third), third.calls
    second = FakeFlash()
    functions = second.flash_attn_varlen_func, second.flash_attn_with_kvcache
    return AttentionKind("flash", PAGE_SIZE, lambda cache: FlashAttention2(cache, *functions)), second.calls


BACKENDS = ("flash 2", "flash 3", "varlen")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", KINDS)
@pytest.mark.parametrize("name", BACKENDS)
def test_rows_of_each_kind(name: str, rows: str, dtype: torch.dtype) -> None:
    kind, calls = faked(name)
    step = RandomStep(rows_of(kind.block_size)[rows], kind.block_size, dtype)
    assert step.error(kind) < TOLERANCE
    assert len(calls) == 1


@pytest.mark.parametrize("heads", [(2, 2), (8, 1), (9, 3)])
@pytest.mark.parametrize("rows", ["decode", "mixed"])
@pytest.mark.parametrize("name", BACKENDS)
def test_heads_in_groups_of_each_size(name: str, rows: str, heads: tuple[int, int]) -> None:
    kind, _ = faked(name)
    num_heads, num_kv_heads = heads
    step = RandomStep(
        rows_of(kind.block_size)[rows], kind.block_size, num_heads=num_heads, num_kv_heads=num_kv_heads, dim=8
    )
    assert step.error(kind) < TOLERANCE


@pytest.mark.parametrize("window", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize("rows", ["chunks", "decode", "mixed"])
@pytest.mark.parametrize("name", BACKENDS)
def test_sliding_window(name: str, rows: str, window: int) -> None:
    kind, _ = faked(name)
    step = RandomStep(rows_of(kind.block_size)[rows], kind.block_size)
    assert step.error(kind, sliding_window=window) < TOLERANCE


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("rows", ["decode", "mixed"])
@pytest.mark.parametrize("name", ["flash 2", "flash 3"])
def test_softcap_and_scaling(name: str, rows: str, window: int | None) -> None:
    kind, _ = faked(name)
    step = RandomStep(rows_of(kind.block_size)[rows], kind.block_size)
    assert step.error(kind, softcap=0.5, scaling=0.9, sliding_window=window) < TOLERANCE


def test_decode_steps_use_the_call_that_splits_contexts() -> None:
    kind, calls = faked("flash 2")
    for rows, expected in (("decode", "with_kvcache"), ("mixed", "varlen"), ("prefill", "varlen")):
        RandomStep(rows_of(PAGE_SIZE)[rows], PAGE_SIZE).error(kind)
        assert calls[-1]["call"] == expected


def test_torch_may_split_contexts_only_where_it_packs_the_heads() -> None:
    kind, calls = faked("varlen")
    for rows, options, expected in (
        ("decode", {}, ((-1, -1), None)),
        ("decode", {"sliding_window": 5}, ((4, 0), 1)),
        ("mixed", {}, ((-1, 0), 1)),
        ("mixed", {"sliding_window": 5}, ((4, 0), 1)),
    ):
        RandomStep(rows_of(PAGE_SIZE)[rows], PAGE_SIZE).error(kind, **options)
        assert (calls[-1]["window_size"], calls[-1]["num_splits"]) == expected
    RandomStep(rows_of(PAGE_SIZE)["decode"], PAGE_SIZE, num_heads=2, num_kv_heads=2).error(kind)
    assert calls[-1]["num_splits"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choose", [flash_attention, varlen_attention])
@pytest.mark.parametrize("heads", [(32, 8, 128), (9, 3, 64), (4, 4, 64)])
@pytest.mark.parametrize("rows", KINDS)
@pytest.mark.parametrize("window", [None, 1, 5, 300])
def test_the_packages_themselves(
    choose: Any, rows: str, window: int | None, heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    num_heads, num_kv_heads, dim = heads
    device = torch.device("cuda:0")
    try:
        kind = choose(AttentionNeeds(device, dtype, num_heads, (KVShape(num_kv_heads, dim, dim),)))
    except NoAttention as reason:
        pytest.skip(str(reason))
    size = kind.block_size
    step = RandomStep(rows_of(size)[rows], size, dtype, num_heads, num_kv_heads, dim, device)
    assert step.error(kind, sliding_window=window) < TOLERANCE
