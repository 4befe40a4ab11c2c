"""Each kernel by itself against torch in float64, at every level of instructions this processor has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import silu

from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.cpu_kernels.levels import LEVELS, cpu_features
from vfastml.text_engine.cpu_kernels.packing import Packer, interleaved
from vfastml.text_engine.cpu_kernels.single import MOST_LAYERS, InputRows, SingleKernels
from vfastml.text_engine.cpu_kernels.structs import BF16, F32, I8
from vfastml.text_engine.kv_cache import KVCache, KVShape

HERE = [level.name for level in LEVELS if level.needs <= cpu_features()]
pytestmark = pytest.mark.skipif(not HERE, reason="kernels are for x86 with AVX2")

FORMATS = {F32: torch.float32, BF16: torch.bfloat16, I8: torch.float32}
SHAPES = [(1, 1), (32, 64), (33, 65), (101, 52), (96, 576), (257, 200)]
"""(outputs, inputs): fewer than a panel or a group, exactly some, and some more."""
ROWS = [1, 2, 3, 5, 6, 7, 11, 12, 13, 25, 200]
"""Every height of a tile, and more than are computed at once."""
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=HERE)
def single(request: pytest.FixtureRequest) -> SingleKernels:
    return SingleKernels(cpu_kernels.load(request.param), num_threads=2)


def random(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


# -- products


def product(
    single: SingleKernels,
    weight_format: int,
    weight: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    packer = Packer(single.kernels, weight_format, [tuple(weight.shape)])
    matrix = packer.matrix(weight, bias)
    return single.products([matrix], InputRows(single.kernels, weight_format, values))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weight_format", [F32, BF16])
def test_products(single: SingleKernels, weight_format: int, shape: tuple[int, int]) -> None:
    outputs, inputs = shape
    dtype = FORMATS[weight_format]
    weight, bias, values = random(outputs, inputs).to(dtype), random(outputs, seed=2), random(max(ROWS), inputs, seed=3)
    values = values.to(dtype).float()  # so that rounding them is no error
    expected = values.double() @ weight.double().T + bias.double()
    for rows in ROWS:
        got = product(single, weight_format, weight, values[:rows], bias)
        assert got.shape[1] % single.kernels.panel == 0
        assert error(got[:, :outputs], expected[:rows]) < 1e-6
        assert not got[:, outputs:].any()


def emulated_int8(weight: torch.Tensor, values: torch.Tensor, group: int) -> np.ndarray:
    """The same in whole numbers, and the few sums of floats one by one in the kernel's order."""
    one, most = np.float32(1), np.float32(127)
    w, x = weight.numpy(), np.pad(values.numpy(), ((0, 0), (0, -values.shape[1] % group)))
    w_top = np.abs(w).max(1)
    w_whole = np.rint(w * (most / np.where(w_top > 0, w_top, one))[:, None]).astype(np.int64)
    w_whole = np.pad(w_whole, ((0, 0), (0, x.shape[1] - w.shape[1])))
    sums = np.zeros((len(x), len(w)), dtype=np.float32)
    for first in range(0, x.shape[1], group):
        part = x[:, first : first + group]
        top = np.abs(part).max(1)
        inverse = np.where(top > 0, most / np.where(top > 0, top, one), np.float32(0))
        whole = np.rint(part * inverse[:, None]).astype(np.int64) @ w_whole[:, first : first + group].T
        # a product and its sum are rounded once
        sums = (whole * (top / most)[:, None].astype(np.float64) + sums).astype(np.float32)
    return sums * (w_top / most)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int8_products_are_exactly_those_of_whole_numbers(single: SingleKernels, shape: tuple[int, int]) -> None:
    outputs, inputs = shape
    weight, values = random(outputs, inputs), random(max(ROWS), inputs, seed=3)
    values[0] = 0.0  # nothing to scale by
    values[1] *= 1e6
    weight[0] = 0.0
    expected = emulated_int8(weight, values, single.kernels.group)
    for rows in ROWS:
        got = product(single, I8, weight, values[:rows])[:, :outputs]
        np.testing.assert_array_equal(got.numpy(), expected[:rows])


def test_int8_products_of_the_largest_numbers(single: SingleKernels) -> None:
    """All at the ends of their range, where an instruction that saturates would be wrong."""
    inputs = 4 * single.kernels.group
    for sign in (1.0, -1.0):
        got = product(single, I8, torch.full((32, inputs), 3.0), torch.full((7, inputs), sign * 2.0))
        assert error(got, torch.full((7, 32), sign * 6.0 * inputs, dtype=torch.float64)) < 1e-6


def test_int8_products_are_near(single: SingleKernels) -> None:
    weight, bias, values = random(96, 576), 30 * random(96, seed=2), random(8, 576, seed=3)
    expected = values.double() @ weight.double().T + bias.double()
    assert 1e-4 < error(product(single, I8, weight, values, bias), expected) < 0.02


def test_matrices_one_after_the_other(single: SingleKernels) -> None:
    values = random(3, 64, seed=9)
    packer = Packer(single.kernels, F32, [(32, 64)] * 5)
    weights = [random(32, 64, seed=seed) for seed in range(5)]
    matrices = [packer.matrix(weight) for weight in weights]
    rows = InputRows(single.kernels, F32, values)
    assert error(single.products(matrices, rows), values.double() @ weights[-1].double().T) < 1e-6
    for wrong in ([], matrices * MOST_LAYERS):
        with pytest.raises(ValueError, match="layers"):
            single.products(wrong, rows)


# -- attention


class Paged:
    """Rows of (tokens, context) in a cache whose blocks lie apart, in no order, with others' garbage between them."""

    def __init__(
        self,
        rows: list[tuple[int, int]],
        heads: tuple[int, int],
        dim: int,
        dtype: torch.dtype,
        block_size: int = 16,
        magnitude: float = 1.0,
    ) -> None:
        num_heads, self.num_kv_heads = heads
        tokens = [count for count, _ in rows]
        self.contexts = [context for _, context in rows]
        used = [-(-context // block_size) for context in self.contexts]
        blocks = np.random.default_rng(5).permutation(2 * sum(used)).astype(np.int32)
        tables = np.split(blocks[: sum(used)], np.cumsum(used)[:-1])
        positions = [np.arange(context - count, context) for count, context in rows]
        slots = [
            table[at // block_size] * block_size + at % block_size for table, at in zip(tables, positions, strict=True)
        ]
        self.inputs = BatchInputs(
            input_ids=torch.zeros(sum(tokens), dtype=torch.int64),
            position_ids=torch.from_numpy(np.concatenate(positions)),
            slots=torch.from_numpy(np.concatenate(slots).astype(np.int64)),
            logits_index=torch.empty(0, dtype=torch.int64),
            query_starts=np.cumsum([0, *tokens]).astype(np.int32),
            context_lens=np.array(self.contexts, dtype=np.int32),
            block_tables=np.concatenate(tables),
            block_starts=np.cumsum([0, *used]).astype(np.int32),
        )
        shape = KVShape(self.num_kv_heads, dim, dim)
        self.cache = KVCache([shape], len(blocks), block_size, dtype, torch.device("cpu"))
        self.query = (magnitude * random(sum(tokens), num_heads, dim)).to(dtype).float()
        self.cache.keys[0].copy_(magnitude * random(*self.cache.keys[0].shape, seed=2))
        self.cache.values[0].copy_(magnitude * random(*self.cache.values[0].shape, seed=3))
        self.scaling = dim**-0.5

    def expected(self, window: int = 0) -> torch.Tensor:
        return torch.cat([self._expected_row(row, window) for row in range(len(self.contexts))])

    def _expected_row(self, row: int, window: int) -> torch.Tensor:
        first, last = self.inputs.query_starts[row : row + 2].tolist()
        blocks = slice(*self.inputs.block_starts[row : row + 2].tolist())
        table = torch.from_numpy(self.inputs.block_tables[blocks].astype(np.int64))
        keys, values = (
            kind[0][table].flatten(0, 1)[: self.contexts[row]].double() for kind in (self.cache.keys, self.cache.values)
        )
        query = self.query[first:last].double()
        sharing = query.shape[1] // self.num_kv_heads
        scores = torch.einsum("qhd,khd->hqk", query, keys.repeat_interleave(sharing, dim=1)) * self.scaling
        distance = self.inputs.position_ids[first:last, None] - torch.arange(self.contexts[row])
        hidden = (distance < 0) | ((distance >= window) if window else False)
        shares = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        return torch.einsum("hqk,khd->qhd", shares, values.repeat_interleave(sharing, dim=1))

    def attend(self, single: SingleKernels, window: int = 0) -> torch.Tensor:
        return single.attend(self.query, self.cache, self.inputs, self.scaling, window)


STEPS = {
    "one token": [(1, 1)],
    "one row": [(1, 130)],
    "decodes": [(1, context) for context in (1, 15, 16, 17, 63, 64, 65, 128, 300)],
    "prompt": [(150, 150)],
    "chunk of a prompt": [(70, 333)],
    "mixed": [(1, 77), (65, 65), (3, 200), (1, 1)],
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 6e-3}
"""With bf16 the shares of a softmax are rounded too."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_attention(single: SingleKernels, step: str, dtype: torch.dtype) -> None:
    for heads, dim in (((9, 3), 64), ((2, 2), 128), ((4, 1), 10), ((3, 1), 36), ((56, 2), 16)):
        paged = Paged(STEPS[step], heads, dim, dtype)
        assert error(paged.attend(single), paged.expected()) < TOLERANCE[dtype], (heads, dim)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 100, 1000])
def test_attention_with_a_window(single: SingleKernels, window: int, dtype: torch.dtype) -> None:
    for step in ("decodes", "prompt", "mixed"):
        paged = Paged(STEPS[step], (6, 2), 64, dtype)
        assert error(paged.attend(single, window), paged.expected(window)) < TOLERANCE[dtype], step


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block_size", [1, 3, 16, 128])
def test_attention_over_blocks_of_any_size(single: SingleKernels, block_size: int, dtype: torch.dtype) -> None:
    paged = Paged(STEPS["mixed"], (4, 2), 64, dtype, block_size)
    assert error(paged.attend(single), paged.expected()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_over_a_very_long_context(single: SingleKernels, dtype: torch.dtype) -> None:
    paged = Paged([(1, 20_001), (3, 5000)], (3, 1), 64, dtype)
    assert error(paged.attend(single), paged.expected()) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_beyond_the_range_of_exp(single: SingleKernels, dtype: torch.dtype) -> None:
    """Scores of many thousands: a softmax that did not take the largest away first would be infinite."""
    paged = Paged(STEPS["mixed"], (4, 2), 64, dtype, magnitude=100.0)
    got = paged.attend(single)
    assert got.isfinite().all()
    assert error(got, paged.expected()) < 1e-2  # nearly one key takes all


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_no_query_sees_changes_nothing(single: SingleKernels, dtype: torch.dtype) -> None:
    paged = Paged(STEPS["mixed"], (4, 2), 64, dtype)
    before = paged.attend(single)
    seen = torch.zeros(paged.cache.keys[0].flatten(0, 1).shape[0], dtype=torch.bool)
    for row, context in enumerate(paged.contexts):
        start, end = paged.inputs.block_starts[row : row + 2]
        table = torch.from_numpy(paged.inputs.block_tables[start:end].astype(np.int64))
        seen[(table[:, None] * 16 + torch.arange(16)).flatten()[:context]] = True
    for kind in (paged.cache.keys[0], paged.cache.values[0]):
        kind.flatten(0, 1)[~seen] = 1e30
    assert torch.equal(paged.attend(single), before)


# -- rows


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [2, 10, 36, 64, 128])
@pytest.mark.parametrize("is_normed", [False, True])
def test_place(single: SingleKernels, dim: int, is_normed: bool, dtype: torch.dtype) -> None:
    paged = Paged(STEPS["mixed"], (4, 2), dim, dtype)
    tokens = len(paged.inputs.input_ids)
    heads = random(tokens, 8, dim, seed=4)
    angles = torch.outer(torch.arange(400.0), 1e4 ** -torch.arange(0, 1, 2 / dim))
    norms = (random(dim, seed=6), random(dim, seed=7)) if is_normed else None
    expected = heads.double()
    if norms is not None:
        normed = expected * (expected.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        expected = torch.cat((normed[:, :4] * norms[0], normed[:, 4:6] * norms[1], expected[:, 6:]), dim=1)
    angle = angles[paged.inputs.position_ids].double()[:, None]
    first, second = expected[:, :6].chunk(2, dim=-1)
    turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
    expected[:, :6] = torch.cat(turned, dim=-1)

    before = paged.cache.keys[0].clone()
    single.rope_and_store(heads, paged.cache, paged.inputs, (angles.cos(), angles.sin()), norms, 1e-5)
    assert error(heads[:, :6], expected[:, :6]) < 1e-6
    keys, values = (kind[0].flatten(0, 1)[paged.inputs.slots] for kind in (paged.cache.keys, paged.cache.values))
    # what is stored is what was computed, rounded to the nearest
    assert torch.equal(keys, heads[:, 4:6].to(dtype))
    assert torch.equal(values, heads[:, 6:].to(dtype))
    others = torch.ones(before.flatten(0, 1).shape[0], dtype=torch.bool).index_fill(0, paged.inputs.slots, False)
    assert torch.equal(paged.cache.keys[0].flatten(0, 1)[others], before.flatten(0, 1)[others])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [10, 64])
def test_the_cache_stays_finite(single: SingleKernels, dim: int, dtype: torch.dtype) -> None:
    paged = Paged([(3, 3)], (2, 2), dim, dtype)
    heads = random(3, 6, dim)
    values = heads[:, 4:]
    clean = values.clone()
    for place, wrong in enumerate((torch.nan, torch.inf, -torch.inf)):
        values[place, 1, place::3] = wrong
        clean[place, 1, place::3] = 0.0
    heads[:, 2:4] = torch.nan
    still = (torch.ones(3, dim // 2), torch.zeros(3, dim // 2))
    single.rope_and_store(heads, paged.cache, paged.inputs, still)
    assert not paged.cache.keys[0].flatten(0, 1)[paged.inputs.slots].any()
    assert torch.equal(paged.cache.values[0].flatten(0, 1)[paged.inputs.slots], clean.to(dtype))


@pytest.mark.parametrize("count", [1, 10, 63, 64, 65, 576])
def test_rms_norm(single: SingleKernels, count: int) -> None:
    rows, weight = random(37, count), random(count, seed=2)
    rows[3] *= 1e-6  # so small that epsilon counts
    rows[4] *= 1e6
    exact = rows.double()
    expected = exact * (exact.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    got = single.rms_norm(rows, weight, 1e-5)
    for row in range(37):
        assert error(got[row], expected[row]) < 1e-6
    assert torch.equal(single.rms_norm(rows, weight, 1e-5, times=3), got)


@pytest.mark.parametrize("rows", [1, 2, 37])
def test_silu_times(single: SingleKernels, rows: int) -> None:
    half = single.kernels.panel // 2
    gate, up = random(rows, 7 * half), random(rows, 7 * half, seed=2)
    gate[0, :7] = torch.tensor([0.0, -20.0, 20.0, -90.0, 90.0, -1e4, 1e4])  # also beyond the range of exp
    panels = interleaved(torch.cat((gate, up), dim=1).T, half).T.contiguous()
    got = single.silu_times(panels)
    expected = silu(gate.double()) * up.double()
    torch.testing.assert_close(got.double(), expected, rtol=2e-6, atol=1e-30)


# -- what this machine can


def test_read_reads_everything(single: SingleKernels) -> None:
    numbers = torch.arange(300_000).view(-1, 8)
    assert single.read(numbers) == int(numbers.sum())
    numbers[-1, -1] += 5
    assert single.read(numbers) == int(numbers.sum())


@pytest.mark.parametrize("weight_format", [F32, BF16, I8])
def test_compute_counts_its_work(single: SingleKernels, weight_format: int) -> None:
    few, many = (single.compute(weight_format, rounds) for rounds in (10, 30))
    assert many == pytest.approx(3 * few)
    assert few > 0


def test_threads_change_no_bit(single: SingleKernels) -> None:
    paged = Paged(STEPS["mixed"], (4, 2), 64, torch.bfloat16)
    weight, values = random(300, 576), random(200, 576, seed=2)
    results = []
    for threads in (1, 2, 5):
        of_some = SingleKernels(single.kernels, threads)
        results.append((paged.attend(of_some), product(of_some, BF16, weight, values)))
    for attended, multiplied in results[1:]:
        assert torch.equal(attended, results[0][0])
        assert torch.equal(multiplied, results[0][1])
