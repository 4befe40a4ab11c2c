"""The sampler draws from the distribution that transformers' own warpers leave, and each row for itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tests.oracle import logits_processors
from vfastml.text_engine import sampler, truncation
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.logits_processors import alter
from vfastml.text_engine.sampler import Sampler, uniforms
from vfastml.text_engine.sampling import SampledToken, Sampling
from vfastml.text_engine.scheduler import ScheduledRow
from vfastml.text_engine.sequence import Sequence as TokenSequence

EOS = 3


def random_logits(rows: int, vocab_size: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale


def draw(row: int = 0, *, choice: int = 0, num_generated: int = 0, tokens: Sequence[int] = (), **sampling: Any) -> Draw:
    return Draw(row, Sampling(max_tokens=1 << 20, **sampling), choice, num_generated, tokens)


def sample(logits: torch.Tensor, draws: list[Draw]) -> list[int]:
    return [one.token for one in Sampler([EOS]).sample(logits.clone(), draws)]


def warped_by_transformers(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    ids = torch.zeros(len(logits), 1, dtype=torch.int64)
    logits = TemperatureLogitsWarper(temperature)(ids, logits)
    if top_k:
        logits = TopKLogitsWarper(top_k)(ids, logits)
    return TopPLogitsWarper(top_p)(ids, logits).softmax(-1) if top_p < 1 else logits.softmax(-1)


def drawn_probabilities(
    monkeypatch: pytest.MonkeyPatch, logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> torch.Tensor:
    """The logits that the last step of sampling gets, as probabilities."""
    seen: list[torch.Tensor] = []

    def keep(logits: torch.Tensor, uniforms: list[float]) -> list[int]:
        seen.append(logits.softmax(-1))
        return [0] * len(uniforms)

    monkeypatch.setattr(sampler, "_draw", keep)
    sample(logits, [draw(row, temperature=temperature, top_k=top_k, top_p=top_p) for row in range(len(logits))])
    return seen[0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.9), (0, 0.05), (40, 0.7), (1, 1.0), (5000, 0.5)]
)
def test_distribution_is_that_of_transformers(
    monkeypatch: pytest.MonkeyPatch, temperature: float, top_k: int, top_p: float
) -> None:
    logits = random_logits(4, 3000)
    expected = warped_by_transformers(logits, temperature, top_k, top_p)
    got = drawn_probabilities(monkeypatch, logits, temperature, top_k, top_p)
    assert torch.equal(got > 0, expected > 0)
    assert (got - expected).abs().max() < 1e-6


def test_flat_distribution_is_sorted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(2, 5000, scale=0.01)
    expected = warped_by_transformers(logits, 1.0, 0, 0.9)
    got = drawn_probabilities(monkeypatch, logits, 1.0, 0, 0.9)
    assert int((got[0] > 0).sum()) > truncation._CANDIDATES
    # Near the cut, both sums of 4,500 like probabilities are rounded.
    assert ((got > 0) != (expected > 0)).sum() <= 4
    assert (got - expected).abs().max() < 1e-3


def test_draws_have_the_frequencies_of_the_distribution() -> None:
    logits = random_logits(1, 12, scale=1.0)
    expected = warped_by_transformers(logits, 0.8, 8, 0.95)[0] * 20_000
    draws = [draw(temperature=0.8, top_k=8, top_p=0.95, seed=7, num_generated=place) for place in range(20_000)]
    counts = torch.bincount(torch.tensor(sample(logits, draws)), minlength=12).float()
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 24.3  # chi-square, 7 degrees: 1 in 1,000


def test_mixed_rows_each_have_their_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(3, 500)
    kinds = [(1.0, 3, 1.0), (0.5, 0, 0.4), (1.5, 0, 1.0)]
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(sampler, "_draw", lambda logits, uniforms: seen.append(logits.softmax(-1)) or [0] * 3)
    sample(logits, [draw(row, temperature=t, top_k=k, top_p=p) for row, (t, k, p) in enumerate(kinds)])
    for row, kind in enumerate(kinds):
        assert (seen[0][row] - warped_by_transformers(logits[row : row + 1], *kind)[0]).abs().max() < 1e-6


def test_equals_of_the_last_kept_token_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert (drawn_probabilities(monkeypatch, logits, 1.0, 2, 1.0)[0] > 0).tolist() == [True] * 4 + [False]
    assert (drawn_probabilities(monkeypatch, logits, 1.0, 0, 0.6)[0] > 0).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("only", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}, {"temperature": 1e-300}])
def test_extreme_parameters_are_greedy(only: dict[str, Any]) -> None:
    logits = random_logits(20, 1000)
    assert sample(logits, [draw(row, seed=row, **only) for row in range(20)]) == logits.argmax(-1).tolist()


def test_smallest_temperature_that_is_drawn_does_not_overflow() -> None:
    logits = random_logits(20, 1000, scale=300.0)
    assert sample(logits, [draw(row, temperature=1e-5) for row in range(20)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_end_tokens_are_barred_until_min_tokens(temperature: float) -> None:
    logits = torch.full((1, 10), -5.0)
    logits[0, EOS], logits[0, 6] = 50.0, 20.0

    def token(**fields: Any) -> int:
        return sample(logits, [draw(temperature=temperature, **fields)])[0]

    assert token(min_tokens=4, num_generated=3) == 6
    assert token(min_tokens=4, num_generated=4) == EOS
    assert token(min_tokens=4, num_generated=0, ignore_eos=True) == EOS


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_barred_row_leaves_its_neighbours_and_its_forks_logits_alone(temperature: float) -> None:
    logits = torch.zeros(2, 10)
    logits[:, EOS] = 50.0
    draws = [draw(0, temperature=temperature, min_tokens=4), draw(1, temperature=temperature)]
    assert sample(logits, draws)[1] == EOS
    shared = [draw(0, temperature=temperature, min_tokens=4, num_generated=2), draw(0, temperature=temperature)]
    assert sample(logits[:1], shared)[1] == EOS


# -- penalties, biases, scores


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
@pytest.mark.parametrize("bias", [{}, {4: 5.0, 9: -100.0, 17: 0.5}])
def test_altered_logits_are_those_of_transformers(penalty: float, bias: dict[int, float]) -> None:
    logits, tokens = random_logits(1, 50), [4, 9, 9, 30, 31, 4]
    sequence_bias = {(token,): value for token, value in bias.items()} or None
    expected = logits_processors(penalty, sequence_bias)(torch.tensor([tokens]), logits.clone())
    alter(logits[0], draw(tokens=tokens, repetition_penalty=penalty, logit_bias=bias))
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_altered_row_leaves_its_neighbours_and_its_forks_logits_alone(temperature: float) -> None:
    logits = torch.zeros(2, 10)
    logits[:, 6], logits[:, 2] = 5.0, 4.0
    kinds: list[dict[str, Any]] = [{}, {"logit_bias": {2: 2.0}}, {"repetition_penalty": 1.5, "tokens": [6, 1]}, {}]
    for rows in ([0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]):
        draws = [draw(row, temperature=temperature, **kind) for row, kind in zip(rows, kinds, strict=True)]
        assert sample(logits[: rows[-1] + 1], draws) == [6, 2, 2, 6]


def test_end_token_is_barred_whatever_its_bias() -> None:
    fields: dict[str, Any] = {"temperature": 0.0, "logit_bias": {EOS: 100.0}, "min_tokens": 2}
    assert sample(torch.zeros(1, 10), [draw(num_generated=2, **fields)]) == [EOS]
    assert sample(torch.zeros(1, 10), [draw(num_generated=1, **fields)]) != [EOS]


def test_tokens_without_a_logit_are_passed_over() -> None:
    fields: dict[str, Any] = {"repetition_penalty": 2.0, "logit_bias": {10: 5.0, 1: 1.0}, "tokens": [0, 10, 99]}
    assert sample(torch.ones(1, 10), [draw(temperature=0.0, **fields)]) == [1]
    assert sample(torch.ones(1, 10), [draw(temperature=0.0, logit_bias={10: 5.0})]) == [0]


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_extreme_penalty_stays_a_number(penalty: float) -> None:
    logits = torch.tensor([[1.0, -1.0, 0.5, -0.5]])
    chosen = sample(logits, [draw(temperature=1e-5, repetition_penalty=penalty, tokens=[0, 1])])
    assert chosen == ([0] if penalty < 1 else [2])


def test_penalty_without_tokens_changes_nothing() -> None:
    logits = random_logits(1, 50)
    assert sample(logits, [draw(temperature=0.0, repetition_penalty=1.5)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 2, 2]])
def test_scores_are_of_the_unaltered_logits_and_only_where_asked_for(rows: list[int]) -> None:
    logits = random_logits(3, 50)
    altered = {"temperature": 1.5, "top_k": 3, "logit_bias": {4: 50.0}, "output_scores": True}
    kinds: list[dict[str, Any]] = [altered, {"temperature": 0.0}, {"output_scores": True}, {}]
    draws = [draw(row, seed=row, **kind) for row, kind in zip(rows, kinds, strict=False)]
    sampled = Sampler([EOS]).sample(logits.clone(), draws)
    for row, kind, one in zip(rows, kinds, sampled, strict=False):
        if "output_scores" in kind:
            assert one.score == pytest.approx(float(logits[row].log_softmax(-1)[one.token]), abs=1e-6)
        else:
            assert one.score is None
    assert sampled[0].token == 4


def test_no_end_tokens_at_all() -> None:
    assert Sampler([]).sample(torch.tensor([[0.0, 1.0]]), [draw(min_tokens=5, temperature=0.0)]) == [SampledToken(1)]


def random_draw(rng: random.Random, row: int) -> Draw:
    return draw(
        row,
        choice=rng.randrange(3),
        num_generated=rng.randrange(9),
        temperature=rng.choice([0.0, 0.7, 1.0, 1.9]),
        top_k=rng.choice([0, 0, 1, 20, 10**9]),
        top_p=rng.choice([1.0, 1.0, 0.1, 0.9]),
        seed=rng.randrange(-(2**63), 2**63),
        min_tokens=rng.choice([0, 5]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.4]),
        logit_bias=rng.choice([{}, {}, {5: 9.0, 8: -9.0}]),
        tokens=[rng.randrange(4000) for _ in range(20)],
    )


@pytest.mark.parametrize("seed", range(10))
def test_token_does_not_depend_on_the_other_rows(seed: int) -> None:
    rng = random.Random(seed)
    logits = random_logits(12, 4000, seed, scale=rng.choice([0.1, 3.0]))
    draws = [random_draw(rng, row) for row in sorted(rng.choices(range(12), k=12))]
    together = sample(logits, draws)
    alone = [sample(logits[d.row : d.row + 1], [replace(d, row=0)])[0] for d in draws]
    assert together == alone


def test_same_seed_same_token_and_other_choice_or_place_another() -> None:
    logits = torch.zeros(1, 50_000)
    first = sample(logits, [draw(seed=11)])
    assert sample(logits, [draw(seed=11)]) == first
    others = [draw(seed=12), draw(seed=11, choice=1), draw(seed=11, num_generated=1)]
    assert len({*first, *sample(logits, others)}) == 4


def test_row_that_is_not_a_number_harms_no_other() -> None:
    logits = random_logits(3, 100)
    sound = sample(logits, [draw(row) for row in range(3)])
    logits[1] = torch.nan
    broken = sample(logits, [draw(row, temperature=1.0) for row in range(3)])
    assert [broken[0], broken[2]] == [sound[0], sound[2]]
    assert 0 <= broken[1] < 100


def test_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    ends = [0.0, 0.5 - 2**-54, 0.5, 1 - 2**-53]
    assert sampler._draw(logits.expand(4, 5), ends) == [1, 1, 3, 3]


@pytest.mark.parametrize("vocab_size", [3, 1000, 50_000])
def test_greatest_number_below_one_draws_a_token_that_exists(vocab_size: int) -> None:
    logits = random_logits(8, vocab_size)
    logits[:, -1] = -torch.inf
    assert all(token < vocab_size - 1 for token in sampler._draw(logits, [1 - 2**-53] * 8))


def test_uniforms_are_spread_over_zero_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [
        draw(seed=seed, choice=choice, num_generated=place)
        for seed in range(20)
        for choice in range(5)
        for place in range(200)
    ]
    numbers = uniforms(draws)
    assert len(set(numbers)) == len(numbers)
    counts = torch.histc(torch.tensor(numbers, dtype=torch.float64), bins=20, min=0, max=1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees: 1 in 1,000
    monkeypatch.setattr(sampler, "draw_bits", lambda draws: np.full(1, 2**64 - 1, dtype=np.uint64))
    assert uniforms([draw()])[0] < 1.0


# -- the rows of a step


def row(forks: int = 0, **sampling: Any) -> ScheduledRow:
    asked = Sampling(max_tokens=1 << 20, **sampling)
    return ScheduledRow(TokenSequence("r", [1, 2, 3], asked, arrival=0, forks=forks), 3, True)


GREEDY_ROWS: list[dict[str, Any]] = [{"forks": 2}, {}, {"min_tokens": 9, "ignore_eos": True}, {"top_p": 0.1}]
OTHERS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"min_tokens": 9},
    {"output_scores": True},
    {"logit_bias": {7: 1e6}},
    {"repetition_penalty": 1.5},
]


@pytest.mark.parametrize("other", [None, *OTHERS])
def test_rows_get_what_their_draws_get(other: dict[str, Any] | None) -> None:
    asked = [{"temperature": 0.0, **each} for each in (*GREEDY_ROWS, *([other] if other else []))]
    rows = [row(**each) for each in asked]
    assert all(each.sequence.takes_argmax for each in rows) == (other is None)
    logits = random_logits(len(rows), 50)
    logits[:, EOS] = 9.0  # what a row gets that may end
    draws = [
        Draw(number, each.sequence.sampling, choice, 0, each.sequence.tokens)
        for number, each in enumerate(rows)
        for choice in range(1 + each.sequence.forks)
    ]
    sampled = Sampler([EOS]).sample_rows(logits.clone(), rows)
    assert [len(each) for each in sampled] == [1 + each.sequence.forks for each in rows]
    assert [one for each in sampled for one in each] == Sampler([EOS]).sample(logits.clone(), draws)


def test_argmax_alone_needs_no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "Draw", None)
    rows = [row(temperature=0.0, **each) for each in GREEDY_ROWS]
    sampled = Sampler([EOS]).sample_rows(torch.eye(4), rows)
    assert sampled == [[SampledToken(number)] * len(sampled[number]) for number in range(4)]
