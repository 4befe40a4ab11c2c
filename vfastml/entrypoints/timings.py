"""How long an answer took, in the model server: as a header, and as a part of a body."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from vfastml.engine.dispatch_replies import Timings, Usage
from vfastml.engine.dispatch_result import TextGenerationResult

SERVER_TIMING = "server-timing"


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """What one prompt took, and how many tokens it was about."""

    timings: Timings
    usage: Usage
    num_choices: int

    @classmethod
    def of(cls, result: TextGenerationResult) -> Self:
        """A whole one."""
        return cls(result.timings, result.usage, len(result.choices))

    def header(self) -> str:
        """The value of `Server-Timing`, in milliseconds from the request's arrival on. Without a generated token there
        is no first one."""
        marks = {"queue": self.timings.queued_s, "total": self.timings.total_s}
        if self.usage.completion_tokens:
            marks = {"queue": marks["queue"], "first_token": self.timings.first_token_s, "total": marks["total"]}
        return ", ".join(f"{name};dur={_ms(seconds)}" for name, seconds in marks.items())

    def body(self) -> dict[str, float | int | None]:
        """Under llama.cpp's names, and the marks of the header. What cannot be said is null: a rate of nothing."""
        timings, usage = self.timings, self.usage
        prompt_n = usage.prompt_tokens - usage.cached_tokens
        has_begun = usage.completion_tokens > 0
        prompt_end_s = timings.first_token_s if has_begun else timings.total_s
        prompt_s, predicted_s = prompt_end_s - timings.queued_s, timings.total_s - prompt_end_s
        # The first of each choice comes out of the prompt, before the time that is counted here begins.
        later_n = usage.completion_tokens - self.num_choices
        return {
            "queued_ms": _ms(timings.queued_s),
            "first_token_ms": _ms(timings.first_token_s) if has_begun else None,
            "total_ms": _ms(timings.total_s),
            "cache_n": usage.cached_tokens,
            "prompt_n": prompt_n,
            "prompt_ms": _ms(prompt_s),
            "prompt_per_token_ms": _quotient(1000 * prompt_s, prompt_n),
            "prompt_per_second": _quotient(prompt_n, prompt_s),
            "predicted_n": usage.completion_tokens,
            "predicted_ms": _ms(predicted_s),
            "predicted_per_token_ms": _quotient(1000 * predicted_s, later_n),
            "predicted_per_second": _quotient(later_n, predicted_s),
            "preemptions": timings.num_preemptions,
        }


def slowest(answers: Iterable[TimedAnswer]) -> TimedAnswer:
    """Of the prompts of one response: that which took longest in all."""
    return max(answers, key=lambda answer: answer.timings.total_s)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _quotient(dividend: float, divisor: float) -> float | None:
    return round(dividend / divisor, 3) if dividend > 0 and divisor > 0 else None
