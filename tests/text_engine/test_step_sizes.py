"""What is chosen from a profile, without a model: growth, targets, and flags that win."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.step_profile import StepProfile, StepTime
from vfastml.text_engine.step_sizes import StepSizes, choose_sizes

SEQS = (1, 2, 4, 8, 16, 32, 64)
CHUNKS = (16, 32, 64, 128, 256, 512)


def steps(tokens: tuple[int, ...], *milliseconds: float) -> tuple[StepTime, ...]:
    return tuple(StepTime(number, each / 1e3) for number, each in zip(tokens, milliseconds, strict=False))


GROWING = steps(SEQS, 10, 10.5, 11, 13, 20, 36, 68)
"""The last doubling brings 6 %: 889 tokens/s become 941."""
PREFILL = steps(CHUNKS, 19, 29, 45, 80, 155, 308)
"""842, 1103, 1422, 1600, 1652, 1662 tokens/s."""


def choose(
    decode: tuple[StepTime, ...] = GROWING,
    prefill: tuple[StepTime, ...] = PREFILL,
    longest_step_s: float | None = 0.25,
    **asked: Any,
) -> StepSizes:
    return choose_sizes(StepProfile(decode, prefill), EngineConfig(**asked), longest_step_s)


def numbers(sizes: StepSizes) -> tuple[int, int]:
    return sizes.max_num_seqs.number, sizes.max_num_batched_tokens.number


def test_batch_grows_while_throughput_does() -> None:
    assert choose().max_num_seqs.number == 64
    assert choose(steps(SEQS, 10, 10.5, 11, 13, 20, 36, 69)).max_num_seqs.number == 32
    assert choose(steps(SEQS, 10, 10.5, 11, 13, 26, 52, 104)).max_num_seqs.number == 8


def test_one_slow_measurement_is_passed_over() -> None:
    assert choose(steps(SEQS, 10, 10.5, 50, 13, 20, 80, 68)).max_num_seqs.number == 64


def test_eight_run_side_by_side_even_if_nothing_is_gained() -> None:
    assert choose(steps(SEQS, 10, 20, 40, 80)).max_num_seqs == (8, "the least: throughput stops growing before")


def test_series_that_was_cut_off_is_taken_as_far_as_it_goes() -> None:
    number, reason = choose(steps(SEQS, 900, 950, 1000, 1100, 1300)).max_num_seqs
    assert number == 16
    assert "the most that were measured" in reason


def test_budget_is_the_smallest_chunk_that_is_nearly_as_fast_as_the_best() -> None:
    assert choose().max_num_batched_tokens.number == 128
    assert choose(prefill=steps(CHUNKS, 19, 29, 45, 80, 150, 240)).max_num_batched_tokens.number == 512


def test_chunks_that_take_too_long_are_no_choice() -> None:
    slow = steps(CHUNKS, 100, 150, 240, 400)
    assert choose(prefill=slow, max_num_seqs=8).max_num_batched_tokens.number == 64
    assert choose(prefill=slow, max_num_seqs=8, longest_step_s=None).max_num_batched_tokens.number == 128
    assert choose(prefill=steps(CHUNKS, 900), max_num_seqs=8).max_num_batched_tokens.number == 24


def test_full_batch_leaves_room_for_prompts() -> None:
    flat = steps(CHUNKS, 16, 32, 64, 128)
    assert numbers(choose(prefill=flat)) == (64, 64 + 16)


def test_flags_win() -> None:
    assert numbers(choose(max_num_seqs=3, max_num_batched_tokens=7)) == (3, 7)
    assert numbers(choose(max_num_seqs=3, target_tpot_ms=1.0, target_ttft_ms=1.0))[0] == 3
    assert numbers(choose(max_num_batched_tokens=300, target_tpot_ms=1.0, target_ttft_ms=1.0))[1] == 300
    sizes = choose(max_num_batched_tokens=20)
    assert numbers(sizes) == (20, 20)
    assert sizes.max_num_seqs.reason == "as many as a step has tokens"


def test_given_batch_is_not_cut_by_a_target_for_the_first_token() -> None:
    sizes = choose(max_num_seqs=64, target_ttft_ms=29.0)
    assert numbers(sizes) == (64, 64 + 16)
    assert sizes.missed == ("--target-ttft-ms 29 is not met: a step with 80 tokens of a prompt takes 53.8 ms",)


def test_reasons_say_at_what_context_sequences_were_measured() -> None:
    for sizes in (choose(), choose(steps(SEQS, 10, 10.5, 11, 13, 26, 52, 104)), choose(target_tpot_ms=40.0)):
        assert "at 128 tokens of context" in sizes.max_num_seqs.reason


def test_target_for_the_time_between_tokens() -> None:
    sizes = choose(target_tpot_ms=40.0)
    num_seqs, budget = numbers(sizes)
    profile = StepProfile(GROWING, PREFILL)
    assert 16 < num_seqs < 32
    assert profile.mixed_s(num_seqs, 16) <= 0.040 < profile.mixed_s(num_seqs + 1, 16)
    assert profile.mixed_s(num_seqs, budget - num_seqs) <= 0.040 < profile.mixed_s(num_seqs, budget - num_seqs + 1)
    assert "--target-tpot-ms" in sizes.max_num_seqs.reason
    assert "--target-tpot-ms" in sizes.max_num_batched_tokens.reason
    assert sizes.missed == ()


def test_generous_target_for_tokens_leaves_the_best_budget() -> None:
    assert numbers(choose(target_tpot_ms=1000.0)) == (64, 128)


def test_with_one_sequence_nobody_waits_for_a_prompt() -> None:
    sizes = choose(target_tpot_ms=12.0)
    assert numbers(sizes) == (1, 128)
    assert sizes.missed == ()


def test_target_for_tokens_that_cannot_be_met_says_what_can() -> None:
    sizes = choose(target_tpot_ms=5.0)
    assert numbers(sizes) == (1, 128)
    assert sizes.missed == ("--target-tpot-ms 5 is not met: a step with 1 sequences takes 10.0 ms",)


def test_target_for_the_first_token() -> None:
    sizes = choose(target_ttft_ms=100.0)
    profile = StepProfile(GROWING, PREFILL)
    budget = sizes.max_num_batched_tokens.number
    assert profile.prefill_s(budget) <= 0.1 < profile.prefill_s(budget + 1)
    assert "with no other request beside it" in sizes.max_num_batched_tokens.reason
    assert sizes.missed == ()


def test_short_target_for_the_first_token_leaves_half_of_a_step_to_prompts() -> None:
    assert numbers(choose(target_ttft_ms=29.0)) == (16, 32)


def test_target_for_the_first_token_that_cannot_be_met_says_what_can() -> None:
    sizes = choose(target_ttft_ms=10.0)
    assert numbers(sizes) == (8, 16)
    assert sizes.missed == ("--target-ttft-ms 10 is not met: a step with 16 tokens of a prompt takes 19.0 ms",)


def test_of_both_targets_the_stricter_counts() -> None:
    alone = {
        name: choose(**{name: 40.0}).max_num_batched_tokens.number for name in ("target_tpot_ms", "target_ttft_ms")
    }
    both = choose(target_tpot_ms=40.0, target_ttft_ms=40.0)
    assert both.max_num_batched_tokens.number == min(alone.values())


def test_flag_that_misses_a_target_is_told() -> None:
    assert len(choose(max_num_seqs=64, max_num_batched_tokens=512, target_tpot_ms=50, target_ttft_ms=100).missed) == 2


TIMES = st.floats(1e-4, 10)
SIZES = st.none() | st.integers(1, 600)
TARGETS = st.none() | st.floats(0.1, 5000)


@given(
    st.lists(TIMES, min_size=1, max_size=len(SEQS)),
    st.lists(TIMES, min_size=1, max_size=len(CHUNKS)),
    SIZES,
    SIZES,
    TARGETS,
    TARGETS,
    st.sampled_from([None, 0.25]),
)
def test_whatever_was_measured_and_asked_for_there_are_sizes_that_work(
    decode: list[float],
    prefill: list[float],
    max_num_seqs: int | None,
    budget: int | None,
    tpot: float | None,
    ttft: float | None,
    longest_step_s: float | None,
) -> None:
    asked = EngineConfig(
        max_num_seqs=max_num_seqs, max_num_batched_tokens=budget, target_tpot_ms=tpot, target_ttft_ms=ttft
    )
    to_ms = [each * 1e3 for each in decode], [each * 1e3 for each in prefill]
    profile = StepProfile(steps(SEQS, *to_ms[0]), steps(CHUNKS, *to_ms[1]))
    num_seqs, tokens = numbers(choose_sizes(profile, asked, longest_step_s))
    assert 1 <= num_seqs <= tokens
    assert budget is None or tokens == budget
    assert max_num_seqs is None or num_seqs == (max_num_seqs if budget is None else min(max_num_seqs, budget))
