from __future__ import annotations

import pytest

from benchmarks.prompts import WORDS, LengthFit, Lengths, RandomPrompts, SharedPrefixPrompts

WORKLOAD = RandomPrompts(Lengths(input_tokens=100, output_tokens=20, range_ratio=0.5))


def test_lengths_fill_their_range_and_stay_in_it() -> None:
    prompts = WORKLOAD.prompts(2000, LengthFit(), seed=3)
    inputs = {len(prompt.text.split()) for prompt in prompts}
    outputs = {prompt.output_tokens for prompt in prompts}
    assert (min(inputs), max(inputs)) == (50, 150)
    assert outputs == set(range(10, 31))


def test_no_range_is_one_length() -> None:
    prompts = RandomPrompts(Lengths(8, 4, 0.0)).prompts(50, LengthFit(), seed=3)
    assert {(len(prompt.text.split()), prompt.output_tokens) for prompt in prompts} == {(8, 4)}


def test_prompts_follow_the_seed_and_differ_from_each_other() -> None:
    assert WORKLOAD.prompts(20, LengthFit(), 1) == WORKLOAD.prompts(20, LengthFit(), 1)
    texts = [prompt.text for seed in (1, 2) for prompt in WORKLOAD.prompts(20, LengthFit(), seed)]
    assert len({tuple(text.split()[:16]) for text in texts}) == 40  # no block of a prefix cache is shared


@pytest.mark.parametrize("tokens", [30, 100, 1000])
def test_words_are_turned_into_tokens_by_what_the_server_counted(tokens: int) -> None:
    fit = LengthFit.through((16, 9 + 16 * 3), (80, 9 + 80 * 3))
    assert abs(9 + 3 * fit.words(tokens) - tokens) <= 2
    assert fit.words(1) == 1


def test_a_server_that_counts_strangely_is_taken_at_one_token_a_word() -> None:
    assert LengthFit.through((16, 0), (80, 0)) == LengthFit()


def test_words_are_plain() -> None:
    assert len(set(WORDS)) == len(WORDS) > 300
    assert all(word.isascii() and word.isalpha() for word in WORDS)


@pytest.mark.parametrize(("groups", "tokens_per_word"), [(1, 1.0), (3, 2.0)])
def test_a_group_shares_most_of_its_prompts_and_no_run_shares_with_another(groups: int, tokens_per_word: float) -> None:
    workload = SharedPrefixPrompts(Lengths(200, 20, 0.5), share=0.9, num_groups=groups)
    fit = LengthFit(fixed=0.0, per_word=tokens_per_word)
    shared = round(180 / tokens_per_word)
    runs = [workload.prompts(60, fit, seed) for seed in (1, 2)]
    prefixes = [{tuple(prompt.text.split()[:shared]) for prompt in run} for run in runs]
    assert [len(each) for each in prefixes] == [groups, groups]
    assert not prefixes[0] & prefixes[1]
    own = {len(prompt.text.split()) - shared for prompt in runs[0]}
    assert min(own) >= 5 / tokens_per_word
    assert max(own) <= 15 * 2 / tokens_per_word
    assert len({prompt.text for run in runs for prompt in run}) == 120
    assert workload.prompts(60, fit, 1) == runs[0]
