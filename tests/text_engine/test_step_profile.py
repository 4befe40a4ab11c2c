"""Step times between and beyond the measured ones, and series that no clock can have measured."""

from __future__ import annotations

import math

import pytest

from vfastml.text_engine.step_profile import StepProfile, StepTime


def series(**seconds: float) -> tuple[StepTime, ...]:
    return tuple(StepTime(int(tokens[1:]), each) for tokens, each in seconds.items())


PROFILE = StepProfile(decode=series(_1=0.010, _2=0.012, _4=0.020), prefill=series(_16=0.02, _32=0.03, _64=0.05))


@pytest.mark.parametrize(("num_seqs", "seconds"), [(1, 0.010), (2, 0.012), (3, 0.016), (4, 0.020), (8, 0.040)])
def test_decode(num_seqs: int, seconds: float) -> None:
    assert PROFILE.decode_s(num_seqs) == pytest.approx(seconds)


@pytest.mark.parametrize(("tokens", "seconds"), [(1, 0.02), (16, 0.02), (24, 0.025), (64, 0.05), (128, 0.1)])
def test_prefill(tokens: int, seconds: float) -> None:
    assert PROFILE.prefill_s(tokens) == pytest.approx(seconds)


def test_mixed_step_costs_a_prompt_only_what_its_tokens_add() -> None:
    assert PROFILE.mixed_s(2, 0) == pytest.approx(0.012)
    assert PROFILE.mixed_s(2, 16) == pytest.approx(0.012 + 16 * 0.03 / 48)


def test_with_a_single_prefill_each_token_costs_its_share() -> None:
    profile = StepProfile(decode=series(_1=0.01), prefill=series(_16=0.032))
    assert profile.mixed_s(1, 4) == pytest.approx(0.018)


def test_prompts_never_make_a_step_shorter() -> None:
    noisy = StepProfile(decode=series(_1=0.01), prefill=series(_16=0.03, _32=0.02))
    assert noisy.mixed_s(1, 100) == pytest.approx(0.01)


@pytest.mark.parametrize("steps", [(), series(_2=0.1, _1=0.2), series(_2=0.1) * 2])
def test_series_are_not_empty_and_grow(steps: tuple[StepTime, ...]) -> None:
    for decode, prefill in ((steps, PROFILE.prefill), (PROFILE.decode, steps)):
        with pytest.raises(ValueError, match="series"):
            StepProfile(decode, prefill)


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)]
)
def test_steps_have_tokens_and_take_time(tokens: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="step"):
        StepTime(tokens, seconds)
