"""From the QKV product to queries and a written cache, in one launch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.text_engine.triton_kernels.layer_shapes import DTYPES, SHAPES, LayerShape, normal, poison
from vfastml.text_engine.decoders.rope_table import RopeTable, rope_angles, rotate
from vfastml.text_engine.triton_kernels import rope_write as kernel
from vfastml.text_engine.triton_kernels import row_norm
from vfastml.text_engine.triton_kernels.rope_write import rope_write, rope_write_reference

EPS = 1e-5
BLOCKS, BLOCK_SIZE = 3, 4


class Case:
    """Arguments of one launch, and empty caches."""

    def __init__(self, shape: LayerShape, dtype: torch.dtype, device: torch.device, slots: list[int]) -> None:
        width = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim

        def random(*size: int, seed: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return normal(*size, seed=seed, dtype=dtype, device=device)

        self.shape, self.dtype, self.device = shape, dtype, device
        self.qkv = random(len(slots), width, seed=1) * 5
        self.x = random(len(slots), shape.hidden, seed=2) * 5
        self.arguments: dict[str, Any] = {
            "position_ids": torch.tensor([(number * 37) % 64 for number in range(len(slots))], device=device),
            "slots": torch.tensor(slots, device=device),
            "angles": random(64, 2, shape.head_dim // 2, seed=3, dtype=torch.float32),
            "bias": random(width, seed=4) if shape.has_bias else None,
            "head_norms": random(2, shape.head_dim, seed=5) if shape.has_head_norms else None,
            "eps": EPS,
        }

    def caches(self) -> tuple[torch.Tensor, torch.Tensor]:
        size = BLOCKS, BLOCK_SIZE, self.shape.num_kv_heads, self.shape.head_dim
        keys = poison(torch.empty(size, dtype=self.dtype, device=self.device))
        return keys, keys.clone()

    def run(self, function: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keys, values = self.caches()
        return function(self.qkv, self.x, keys=keys, values=values, **self.arguments), keys, values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_torch_and_writes_nothing_else(shape: LayerShape, dtype: torch.dtype, device: torch.device) -> None:
    case = Case(shape, dtype, device, slots=[7, -1])
    all_found = case.run(rope_write)
    for found, expected in zip(all_found, case.run(rope_write_reference), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, equal_nan=True)
    keys = all_found[1]
    assert not keys.isnan().flatten(0, 1)[7].any()
    assert int(keys.isnan().sum()) == keys.numel() - keys[0, 0].numel()


@pytest.mark.parametrize("programs", [1, 6])
@pytest.mark.parametrize("many", [1, 99])
def test_programs_that_share_a_token_and_those_that_have_one_each(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, programs: int, many: int
) -> None:
    monkeypatch.setattr(row_norm, "_PROGRAMS", programs)
    monkeypatch.setattr(kernel, "_MANY_ROWS", many)
    case = Case(LayerShape(32, 0, 15, 3, 128), torch.float32, device, slots=[4, -1, 9])
    for found, expected in zip(case.run(rope_write), case.run(rope_write_reference), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_product_in_float32_of_a_float16_model(device: torch.device) -> None:
    case = Case(SHAPES["odd"], torch.float16, device, slots=[0, 5])
    case.qkv = case.qkv.float() * 1e6
    case.x = case.x * 1e3
    for found, expected in zip(case.run(rope_write), case.run(rope_write_reference), strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_stored_as_zero(dtype: torch.dtype, device: torch.device) -> None:
    case = Case(SHAPES["smollm2 135M"], dtype, device, slots=[3])
    dim, first_value = 64, (9 + 3) * 64
    case.qkv[0, 9 * dim] = float("nan")
    case.qkv[0, first_value : first_value + 2] = torch.tensor([float("inf"), float("-inf")])
    _, keys, values = (tensor.flatten(0, -2) for tensor in case.run(rope_write))
    assert keys[9, [0, dim // 2]].tolist() == [0.0, 0.0]
    assert values[9, :2].tolist() == [0.0, 0.0]
    assert int((keys[9:12] == 0).sum()) == int((values[9:12] == 0).sum()) == 2


def test_what_the_cache_cannot_hold_is_stored_as_zero(device: torch.device) -> None:
    case = Case(SHAPES["smollm2 135M"], torch.float16, device, slots=[3])
    case.qkv = case.qkv.float()
    case.qkv[0, (9 + 3) * 64] = 1e8
    assert float(case.run(rope_write)[2].flatten(0, 1)[3, 0, 0]) == 0.0


def test_turns_as_transformers_does_in_float32(device: torch.device) -> None:
    shape = LayerShape(64, 0, 4, 2, 16)
    case = Case(shape, torch.float32, device, slots=[0, 1, 2])
    inv_freq = 10000.0 ** -(torch.arange(8) / 8)
    positions = torch.tensor([0, 5000, 9999], device=device)
    case.arguments |= {"position_ids": positions, "angles": rope_angles(inv_freq, 0.5, 10000, device)}
    found = case.run(rope_write)[0]
    scale = torch.rsqrt(case.x.square().mean(-1, keepdim=True) + EPS)
    query = (case.qkv * scale).view(3, -1, 16)[:, :4]
    cos, sin = RopeTable(inv_freq, 0.5, torch.float32, device).at(positions, 10000)
    torch.testing.assert_close(found, rotate(query, cos, sin))
