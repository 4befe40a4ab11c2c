"""Tokens are those of the largest noisy logits among what truncation.py keeps, each row for itself."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from tests.text_engine.triton_kernels.gumbel_oracle import gumbel
from vfastml.text_engine.triton_kernels.candidates import CAPACITY, CHUNK
from vfastml.text_engine.triton_kernels.sampling import sample_tokens
from vfastml.text_engine.truncation import keep_min_p, keep_top_k, keep_top_p

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Row(NamedTuple):
    """What one row asks for."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0


def run(logits: torch.Tensor, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [S], and what each row has kept of its scaled logits [S, vocab_size]; both on the CPU."""
    temperature, top_p, log_min_p = (
        torch.tensor(numbers, dtype=torch.float32, device=logits.device)
        for numbers in (
            [row.temperature for row in rows],
            [row.top_p for row in rows],
            [math.log(row.min_p) if row.min_p else -math.inf for row in rows],
        )
    )
    top_k = torch.tensor([row.top_k for row in rows], dtype=torch.int32, device=logits.device)
    seeds = torch.tensor([row.seed for row in rows], dtype=torch.int64, device=logits.device)
    out = torch.full((len(rows),), -1, device=logits.device)
    cutoffs = sample_tokens(logits, temperature, top_k, top_p, log_min_p, seeds, out).cpu()
    values = scaled(logits, rows)
    return out.cpu(), values.masked_fill(values < cutoffs[:, None], -torch.inf)


def scaled(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    return logits.float().cpu() / torch.tensor([row.temperature or 1.0 for row in rows])[:, None]


def truncated(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """What truncation.py keeps of the scaled logits."""
    values = keep_top_k(scaled(logits, rows), [row.top_k for row in rows])
    values = keep_top_p(values, [row.top_p for row in rows])
    return keep_min_p(values, [row.min_p for row in rows])


def assert_same_kept(got: torch.Tensor, logits: torch.Tensor, rows: list[Row]) -> None:
    """As truncation.py's; but where the sum of probabilities is top_p but for rounding, either may take one value more,
    and those that add nothing to it."""
    limited = keep_top_k(scaled(logits, rows), [row.top_k for row in rows]).double().softmax(-1)
    expected = truncated(logits, rows)
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        differs = (one > -torch.inf) != (other > -torch.inf)
        if differs.any():
            common = float(limited[number, (one > -torch.inf) & (other > -torch.inf)].sum())
            assert abs(common - rows[number].top_p) < 3e-6, (number, int(differs.sum()))
            more = limited[number, differs]
            assert more[more < more.max()].sum() < 3e-6


def random_logits(rows: int, vocab_size: int, device: torch.device, scale: float = 3.0) -> torch.Tensor:
    return (torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * scale).to(device)


CUTS = [
    Row(top_k=1),
    Row(0.7, top_k=20),
    Row(2.0, top_k=300),
    Row(top_k=999),
    Row(top_k=10**9),
    Row(top_p=0.9),
    Row(0.3, top_p=0.5),
    Row(1.5, top_p=0.999),
    Row(top_p=1e-9),
    Row(top_p=1 - 2**-24),
    Row(min_p=0.1),
    Row(min_p=1.0),
    Row(0.6, 20, 0.95),
    Row(1.2, 50, 0.3, 0.02),
    Row(0.8, 0, 0.8, 0.2),
    Row(1.0, 5, 1.0, 0.001),
    Row(1e-5, 30, 0.9, 0.1),
]


def kind(name: str, device: torch.device, vocab_size: int) -> torch.Tensor:
    """One row of logits [vocab_size]."""
    logits = random_logits(1, vocab_size, device)[0]
    if name == "flat":
        return logits / 1000
    if name == "equal":
        return torch.zeros_like(logits) - 3
    if name == "tied":
        return logits.round()
    if name == "peaked":
        logits[7], logits[vocab_size - 1] = 30, 29.5
    if name == "barred":
        logits[torch.arange(vocab_size) % 5 > 0] = -torch.inf
    if name == "negative":
        return logits - 20
    if name == "about zero":
        return logits * torch.logspace(-38, 0, vocab_size, device=device)
    return logits


KINDS = ["random", "flat", "equal", "tied", "peaked", "barred", "negative", "about zero"]


@pytest.mark.parametrize("name", KINDS)
def test_kept_are_those_of_truncation(device: torch.device, name: str) -> None:
    cuts = CUTS if device.type == "cuda" else CUTS[KINDS.index(name) % 3 :: 3]  # the interpreter takes its time
    logits = kind(name, device, 1000).repeat(len(cuts), 1)
    tokens, kept = run(logits, cuts)
    assert_same_kept(kept, logits, cuts)
    assert (kept.gather(1, tokens[:, None]) > -torch.inf).all()


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_kept_of_halves(device: torch.device, dtype: torch.dtype) -> None:
    cuts = CUTS if device.type == "cuda" else CUTS[DTYPES.index(dtype) :: 3]
    logits = random_logits(len(cuts), 997, device).to(dtype)
    assert_same_kept(run(logits, cuts)[1], logits, cuts)


@pytest.mark.parametrize("scale", [0.01, 4.0])
def test_kept_of_many_chunks(device: torch.device, scale: float) -> None:
    rows = [Row(0.9, 40), Row(1.0, 0, 0.6), Row(1.1, 2 * CAPACITY.value, 0.9, 0.01), Row(1.0, 5000)]
    logits = random_logits(len(rows), 2 * CHUNK.value + 100, device, scale)
    tokens, kept = run(logits, rows)
    assert_same_kept(kept, logits, rows)
    assert (kept.gather(1, tokens[:, None]) > -torch.inf).all()


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(17, torch.float32), (49152, torch.bfloat16), (128256, torch.float32)]
)
def test_vocabularies(device: torch.device, vocab_size: int, dtype: torch.dtype) -> None:
    rows = [Row(0.8, 50, 0.9)]
    logits = random_logits(1, vocab_size, device).to(dtype)
    tokens, kept = run(logits, rows)
    assert_same_kept(kept, logits, rows)
    assert (kept.gather(1, tokens[:, None]) > -torch.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 17, 1000, CHUNK.value, 2 * CHUNK.value + 1])
def test_greedy_takes_the_first_of_the_largest(device: torch.device, vocab_size: int, dtype: torch.dtype) -> None:
    logits = random_logits(4, vocab_size, device, 0.7).to(dtype)
    logits[1] = -torch.inf
    logits[1, vocab_size // 2 :] = -7
    logits[2] = logits[2].round()
    logits[3] = 0
    tokens, _ = run(logits, [Row(0.0), Row(1e-6, 5, 0.5), Row(0.0, 0, 0.9), Row(0.0)])
    assert tokens.tolist() == logits.float().cpu().numpy().argmax(-1).tolist()


@pytest.mark.parametrize("vocab_size", [17, 1000, 2 * CHUNK.value + 10])
def test_token_has_the_largest_noisy_logit(device: torch.device, vocab_size: int) -> None:
    rows = [
        Row(1.0, seed=2**62 + 5),
        Row(1.7, seed=6),
        Row(0.8, 30, 0.9, seed=7),
        Row(2.0, 0, 0.99, 0.001, seed=2**63 - 1),
    ]
    logits = random_logits(len(rows), vocab_size, device)
    tokens, kept = run(logits, rows)
    noisy = kept.double() + np.stack([gumbel(row.seed, vocab_size) for row in rows])
    best, second = noisy.topk(2).values.unbind(1)
    assert (best - second > 1e-4).all()  # else rounding might decide
    assert tokens.tolist() == noisy.argmax(-1).tolist()


def test_draws_have_the_frequencies_of_the_distribution(device: torch.device) -> None:
    rows = [Row(0.8, 6, 0.97, seed=seed) for seed in range(20_000)]
    logits = random_logits(1, 8, device, 1.0)
    kept = truncated(logits, rows[:1])
    tokens = (kept.numpy() + np.stack([gumbel(row.seed, 8) for row in rows])).argmax(-1)
    some = rows if device.type == "cuda" else rows[:16]
    assert (run(logits.expand(len(some), 8), some)[0].numpy() == tokens[: len(some)]).mean() > 0.999
    expected = kept[0].double().softmax(-1).numpy() * len(rows)
    counts = np.bincount(tokens, minlength=8)
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert 4 <= len(expected) < 8
    assert ((counts - expected) ** 2 / expected).sum() < 22.5  # chi-square, at most 6 degrees: 1 in 1,000


def test_token_depends_on_its_own_row_alone(device: torch.device) -> None:
    rows = [Row(), Row(0.7, 20), Row(0.0), Row(1.3, 0, 0.9), Row(2.0, 0, 0.9, 0.1), Row(1.5, 200, 0.99)]
    rows = [row._replace(seed=seed) for seed, row in enumerate(rows)]
    logits = random_logits(len(rows), 900, device, 1.0)
    together, kept = run(logits, rows)
    backwards, kept_backwards = run(logits.flip(0), rows[::-1])
    assert together.tolist() == backwards.flip(0).tolist()
    assert torch.equal(kept, kept_backwards.flip(0))
    for number, row in enumerate(rows):
        assert run(logits[number : number + 1], [row])[0].tolist() == [int(together[number])]


def test_rows_may_be_apart(device: torch.device) -> None:
    wide = torch.full((3, 200), 99.0, device=device)
    wide[:, :50] = random_logits(3, 50, device)
    rows = [Row(0.0), Row(1.0, 3), Row(1.0, seed=4)]
    assert run(wide[:, :50], rows)[0].tolist() == run(wide[:, :50].contiguous(), rows)[0].tolist()


STRANGE = [math.nan, math.inf, -math.inf, 3.4e38, -3.4e38]


@pytest.mark.parametrize(
    "row", [Row(0.0), Row(), Row(1.0, 3), Row(0.5, 0, 0.9), Row(1.0, 300, 0.5, 0.1), Row(1e-5, 2, 0.5)]
)
def test_rows_that_are_no_numbers_end_and_harm_no_other(device: torch.device, row: Row) -> None:
    logits = random_logits(2 * len(STRANGE) + 1, 500, device)
    sound = run(logits[:1], [row])[0][0]
    for number, value in enumerate(STRANGE):
        logits[1 + 2 * number] = value
        logits[2 + 2 * number, 3:400] = value
    tokens, _ = run(logits, [row] * len(logits))
    assert tokens[0] == sound
    assert ((tokens >= 0) & (tokens < 500)).all()
    assert not 3 <= tokens[2] < 400, "not a number"
    assert 3 <= tokens[4] < 400, "infinite"
    assert not 3 <= tokens[6] < 400, "minus infinity"


def test_rows_that_ask_for_nonsense_end(device: torch.device) -> None:
    logits = random_logits(6, 500, device)
    nonsense = [
        Row(math.nan, -1, math.nan, seed=-1),
        Row(math.inf, 5, -1.0),
        Row(-1.0, -(2**31), 5.0),
        Row(1.0, 2**31 - 1, math.nan, math.nan),
        Row(1e38, 3, 0.0, 1e30),
        Row(1e-40, 3, 0.5),
    ]
    tokens, _ = run(logits, nonsense)
    assert ((tokens >= 0) & (tokens < 500)).all()


def test_token_without_probability_is_never_drawn(device: torch.device) -> None:
    logits = torch.full((12, 64), -torch.inf, device=device)
    logits[:, 5::9] = 0.0
    cuts = [Row(), Row(top_k=50), Row(top_p=0.99), Row(1.0, 60, 0.999, 1e-9)]
    rows = [cuts[seed % 4]._replace(seed=seed) for seed in range(12)]
    tokens, _ = run(logits, rows)
    assert set(tokens.tolist()) <= set(range(5, 64, 9))
    assert len(set(tokens.tolist())) > 3
