"""From measured step times to the sizes of a step: how many sequences run, and how many tokens one step computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.step_profile import CONTEXT, StepProfile, StepTime

_WORTH_IT = 1.05
"""A larger batch is taken while it brings at least this many times the throughput of every smaller one."""
_NEARLY_BEST = 0.95
"""Of the best throughput of prefill: beyond it, a larger step only makes others wait longer."""
_LEAST_SEQS = 8
"""Requests that run side by side wherever memory allows, even if throughput gains nothing: none waits for another."""
_LEAST_CHUNK = 16
"""Tokens of prompts for which a step has room beside a full batch: a prompt gets on while others are answered."""


class Size(NamedTuple):
    """What was chosen, and why, in words for the log."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class StepSizes:
    """The sizes of a step."""

    max_num_seqs: Size
    max_num_batched_tokens: Size
    missed: tuple[str, ...] = ()
    """What was asked for and cannot be had, each with the figure that can."""


def choose_sizes(profile: StepProfile, config: EngineConfig, longest_step_s: float | None) -> StepSizes:
    """What was asked for, and the best of the profile for the rest. `longest_step_s` bounds steps that compute prompts;
    None: they may be as long as they are."""
    num_seqs = _num_seqs(profile, config, longest_step_s)
    budget = _token_budget(profile, config, num_seqs.number, longest_step_s)
    if config.max_num_seqs is not None and config.max_num_batched_tokens is None:
        budget = max(budget, _room_beside(num_seqs.number))
    if num_seqs.number > budget.number:
        num_seqs = Size(budget.number, "as many as a step has tokens")
    return StepSizes(num_seqs, budget, _missed(profile, config, num_seqs.number, budget.number))


def _num_seqs(profile: StepProfile, config: EngineConfig, longest_step_s: float | None) -> Size:
    if config.max_num_seqs is not None:
        return Size(config.max_num_seqs, "as asked for")
    num_seqs = _best_batch(profile) if config.target_tpot_ms is None else _batch_within(profile, config.target_tpot_ms)
    if config.target_ttft_ms is None:
        return num_seqs
    chunk = _chunk_within(profile, config.target_ttft_ms, longest_step_s).number
    return min(num_seqs, Size(max(1, chunk // 2), "half of a step's tokens: the other half is for prompts"))


def _best_batch(profile: StepProfile) -> Size:
    best = profile.decode[0]
    for step in profile.decode[1:]:
        if step.tokens_per_s >= _WORTH_IT * best.tokens_per_s:
            best = step
    if best.tokens < _LEAST_SEQS:
        return Size(_LEAST_SEQS, "the least: throughput stops growing before")
    if best is profile.decode[-1]:
        return Size(best.tokens, f"throughput grows up to here, the most that were measured: {_decode_rate(best)}")
    return Size(best.tokens, f"more sequences gain less than {_WORTH_IT - 1:.0%} over {_decode_rate(best)}")


def _batch_within(profile: StepProfile, target_ms: float) -> Size:
    most = profile.decode[-1].tokens
    found = _largest(range(1, most + 1), lambda number: profile.mixed_s(number, _LEAST_CHUNK), target_ms)
    if found is None:
        return Size(1, f"two, or one beside a prompt, would take longer than the {target_ms:g} ms of --target-tpot-ms")
    reason = f"the most that get a token within {target_ms:g} ms beside {_LEAST_CHUNK} tokens of a prompt"
    return Size(found, f"{reason}, at {CONTEXT} tokens of context (--target-tpot-ms)")


def _token_budget(profile: StepProfile, config: EngineConfig, num_seqs: int, longest_step_s: float | None) -> Size:
    if config.max_num_batched_tokens is not None:
        return Size(config.max_num_batched_tokens, "as asked for")
    if config.target_ttft_ms is None:
        budget = _best_chunk(profile, num_seqs, longest_step_s)
    else:
        budget = _chunk_within(profile, config.target_ttft_ms, longest_step_s)
    # With one sequence nobody waits for a token while a prompt is computed.
    if config.target_tpot_ms is None or num_seqs == 1:
        return budget
    return min(budget, _budget_beside(profile, num_seqs, config.target_tpot_ms))


def _best_chunk(profile: StepProfile, num_seqs: int, longest_step_s: float | None) -> Size:
    steps = _short(profile.prefill, longest_step_s)
    best = max(step.tokens_per_s for step in steps)
    chosen = next(step for step in steps if step.tokens_per_s >= _NEARLY_BEST * best)
    least = _room_beside(num_seqs)
    if chosen.tokens < least.number:
        return least
    share = chosen.tokens_per_s / best
    within = "" if longest_step_s is None else f" that steps of at most {1e3 * longest_step_s:.0f} ms reach"
    return Size(chosen.tokens, f"the fewest with {share:.0%} of the best prefill{within}: {_rate(chosen)}")


def _room_beside(num_seqs: int) -> Size:
    return Size(num_seqs + _LEAST_CHUNK, f"room for {_LEAST_CHUNK} tokens of prompts beside {num_seqs} sequences")


def _chunk_within(profile: StepProfile, target_ms: float, longest_step_s: float | None) -> Size:
    most = _short(profile.prefill, longest_step_s)[-1].tokens
    fewest = profile.prefill[0].tokens
    found = _largest(range(fewest, most + 1), profile.prefill_s, target_ms)
    if found is None:
        return Size(fewest, f"the fewest: even they take longer than the {target_ms:g} ms of --target-ttft-ms")
    reason = f"a prompt of up to so many, with no other request beside it, is computed within {target_ms:g} ms"
    return Size(found, f"{reason} (--target-ttft-ms)")


def _budget_beside(profile: StepProfile, num_seqs: int, target_ms: float) -> Size:
    most = profile.prefill[-1].tokens
    found = _largest(range(_LEAST_CHUNK, most + 1), lambda tokens: profile.mixed_s(num_seqs, tokens), target_ms)
    reason = f"a step of {num_seqs} sequences and prompts stays within {target_ms:g} ms (--target-tpot-ms)"
    return Size(num_seqs + (found or _LEAST_CHUNK), reason if found else "as little for prompts as there is")


def _missed(profile: StepProfile, config: EngineConfig, num_seqs: int, budget: int) -> tuple[str, ...]:
    asked_for = {
        "--target-tpot-ms": (config.target_tpot_ms, profile.decode_s(num_seqs), f"with {num_seqs} sequences"),
        "--target-ttft-ms": (config.target_ttft_ms, profile.prefill_s(budget), f"with {budget} tokens of a prompt"),
    }
    return tuple(
        f"{flag} {target_ms:g} is not met: a step {what} takes {1e3 * seconds:.1f} ms"
        for flag, (target_ms, seconds, what) in asked_for.items()
        if target_ms is not None and 1e3 * seconds > target_ms
    )


def _short(steps: tuple[StepTime, ...], longest_s: float | None) -> tuple[StepTime, ...]:
    """Those that are short enough, or the first, if none is."""
    return tuple(step for step in steps if longest_s is None or step.seconds <= longest_s) or steps[:1]


def _largest(numbers: Iterable[int], seconds: Callable[[int], float], target_ms: float) -> int | None:
    return max((number for number in numbers if 1e3 * seconds(number) <= target_ms), default=None)


def _decode_rate(step: StepTime) -> str:
    return f"{_rate(step)}, at {CONTEXT} tokens of context"


def _rate(step: StepTime) -> str:
    return f"{step.tokens_per_s:,.0f} tokens/s at {1e3 * step.seconds:.1f} ms a step"
