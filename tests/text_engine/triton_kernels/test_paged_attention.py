"""Our attention kernels against the reference backend, over a cache that is NaN wherever nothing may be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.text_engine.triton_kernels.paged_step import PagedStep
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.triton_kernels import paged_attention
from vfastml.text_engine.triton_kernels.launch_parameters import LaunchParameters

pytestmark = pytest.mark.usefixtures("poisoned_memory")

MODELS = {
    "Llama-3.1-8B": {"num_heads": 32, "num_kv_heads": 8, "key_dim": 128},
    "Qwen2-7B": {"num_heads": 28, "num_kv_heads": 4, "key_dim": 128},
    "Qwen2-0.5B": {"num_heads": 14, "num_kv_heads": 2, "key_dim": 64},
    "SmolLM2-135M": {"num_heads": 9, "num_kv_heads": 3, "key_dim": 64},
}
STEPS = {
    "prefill": [(0, 19), (0, 2)],
    "chunked": [(37, 9), (16, 16)],
    "decode": [(33, 1), (0, 1), (63, 1)],
    "mixed": [(40, 1), (0, 2), (31, 9)],
}
HALVES = [torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
"""The interpreter multiplies bfloat16 as if it were whole numbers."""


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_steps_of_each_kind(dtype: torch.dtype, kind: str, device: torch.device) -> None:
    PagedStep(STEPS[kind], num_heads=6, num_kv_heads=2, dtype=dtype, device=device).check()


@pytest.mark.parametrize("model", MODELS)
def test_heads_of_models(model: str, device: torch.device) -> None:
    PagedStep(STEPS["mixed"], **MODELS[model], device=device).check()


@pytest.mark.parametrize(("key_dim", "value_dim"), [(80, 80), (96, 96), (256, 256), (64, 128), (8, 24)])
def test_head_dims(key_dim: int, value_dim: int, device: torch.device) -> None:
    PagedStep([(20, 14), (50, 1)], 2, 1, key_dim, value_dim, device=device).check()


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(2, 2), (5, 1), (71, 1)])
def test_heads_per_kv_head(num_heads: int, num_kv_heads: int, device: torch.device) -> None:
    PagedStep([(9, 3), (30, 1)], num_heads, num_kv_heads, device=device).check()


@pytest.mark.parametrize("block_size", [4, 64, 256])
def test_block_sizes(block_size: int, device: torch.device) -> None:
    PagedStep([(70, 1), (3, 30), (61, 9)], block_size=block_size, device=device).check()


@pytest.mark.parametrize("window", [1, 32, 33, 75, 300])
def test_sliding_window(window: int, device: torch.device) -> None:
    lengths = [(150, 1), (0, 1), (120, 30), (31, 2)]
    PagedStep(lengths, device=device).check(AttentionOptions(0.125, window))


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("softcap", [0.5, 30.0])
def test_softcap(softcap: float, window: int | None, device: torch.device) -> None:
    PagedStep([(70, 1), (40, 20)], device=device).check(AttentionOptions(0.3, window, softcap))


def test_scores_that_are_all_far_below_zero(device: torch.device) -> None:
    """Their weights would all be zero beside a score of 0 that nothing has."""
    step = PagedStep([(40, 1), (40, 20)], num_heads=2, device=device)
    for keys in (*step.cache.keys, *step.reference.keys, step.key):
        keys.abs_()
    step.query = step.query.abs() * -50
    options = AttentionOptions(0.125)
    torch.testing.assert_close(step.attend(options), step.expected(options), atol=1e-3, rtol=1e-3)


def test_queries_that_are_views_of_a_larger_tensor(device: torch.device) -> None:
    step = PagedStep([(20, 9), (40, 1)], num_heads=6, num_kv_heads=2, device=device)
    together = torch.full((len(step.query), 10, 64), torch.nan)
    together[:, 1:7] = step.query
    heads_first = step.query.transpose(0, 1).contiguous().transpose(0, 1)
    options = AttentionOptions(0.125)
    expected = step.expected(options)
    for view in (together[:, 1:7], heads_first):
        assert not view.is_contiguous()
        step.query = view
        step.assert_close(step.attend(options), expected)


@pytest.mark.parametrize(("block_m", "tile"), [(16, 16), (16, 64), (128, 16)])
@pytest.mark.parametrize("options", [{}, {"sliding_window": 45}])
def test_any_size_of_tile(
    block_m: int, tile: int, options: dict[str, Any], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = LaunchParameters(block_m, tile, num_warps=4, num_stages=1)
    monkeypatch.setattr(paged_attention, "prefill_parameters", lambda *args: parameters)
    PagedStep([(100, 20), (0, 17)], device=device).check(AttentionOptions(0.125, **options))


def test_many_rows_of_all_lengths(device: torch.device) -> None:
    """Each query block finds its row, those of the rows before and after being of any number."""
    lengths = [(row % 3, 1 + (row * 7) % 23) for row in range(13)]
    PagedStep(lengths, num_heads=1, device=device).check()


def test_mistral_beyond_its_window_in_small(device: torch.device) -> None:
    """Whole tiles lie outside of the window."""
    step = PagedStep([(300, 9), (400, 1)], num_heads=8, num_kv_heads=2, key_dim=128, device=device)
    step.check(AttentionOptions(128**-0.5, sliding_window=128))


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [[(4085, 24)], [(0, 40), (5000, 12), (4500, 1), (100, 1)]])
def test_mistral_beyond_its_window(lengths: list[tuple[int, int]], device: torch.device) -> None:
    step = PagedStep(lengths, **MODELS["Llama-3.1-8B"], device=device)
    step.check(AttentionOptions(128**-0.5, sliding_window=4096))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_long_steps(model: str, device: torch.device) -> None:
    lengths = [(0, 200), (300, 60), (1500, 1), (90, 1), (150, 33)]
    for dtype in [torch.float32, *HALVES]:
        PagedStep(lengths, **MODELS[model], dtype=dtype, device=device).check()
