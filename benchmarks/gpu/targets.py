"""What was to be reached, beside what was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.engine_titles import DECODE_STEP, TOKENS_PER_S
from benchmarks.gpu.records import GpuResult
from benchmarks.gpu.titles import (
    COPY,
    DEFAULT,
    EQUAL,
    ERROR,
    FAILED,
    GREEDY,
    HTTP,
    LOGITS,
    NOT_RUN,
    PASSED,
    REFERENCE_ERROR,
    SATURATION,
    STEP_GB,
    TESTS,
    batch,
    closed_loop,
)
from benchmarks.hf_labels import CONTINUOUS

YES, NO, UNKNOWN, DRY = "yes", "NO", "not measured", "dry"
_LEAST_SHARE, _LEAST_BATCH_128, _LEAST_SATURATION, _LEAST_TIMES = 75.0, 10_000.0, 11_000.0, 5.0
_MOST_LOST = 10.0
_MOST_ERROR = 1.5
"""Times that of transformers in the same dtype, both against float32."""


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    title: str
    wanted: str
    reached: str
    met: bool | None
    """None: it was not measured."""
    is_speed: bool = False
    """Then a dry run says nothing of it."""

    def verdict(self, *, dry: bool) -> str:
        """For the table."""
        if self.met is None:
            return UNKNOWN
        return DRY if dry and self.is_speed else YES if self.met else NO


def targets(result: GpuResult) -> list[Target]:
    """Those of a card; the speeds in tokens/s were set for an H100."""
    large = str(result.settings["large"])
    return [
        _at_least("batch 1, of the copy bandwidth, %", _LEAST_SHARE, batch_1_share(result, large)),
        _at_least("batch 128, tokens/s", _LEAST_BATCH_128, _rate(result, large, batch(128))),
        _at_least(f"{SATURATION}, tokens/s", _LEAST_SATURATION, _rate(result, large, SATURATION)),
        _at_least("batch 128, times transformers' generate_batch", _LEAST_TIMES, times_generate_batch(result, large)),
        *(_lost(result, large, level) for level in result.settings["levels"]),
        _equality(result),
        _errors(result),
        _tests(result),
    ]


def batch_1_share(result: GpuResult, model: str, case: str = DEFAULT) -> float | None:
    """Of the bytes that could have been copied in the time of a decode step: those that it has to read, in percent."""
    return share_of_copy(result, model=model, case=case, workload=batch(1))


def share_of_copy(result: GpuResult, **wanted: str) -> float | None:
    """The same for any workload whose steps are known."""
    step_ms, step_gb = result.median(DECODE_STEP, **wanted), result.median(STEP_GB, **wanted)
    copied = result.median(COPY)
    return None if step_ms is None or step_gb is None or copied is None else 100 * step_gb / (step_ms / 1e3) / copied


def times_generate_batch(result: GpuResult, model: str) -> float | None:
    """Our tokens/s over those of transformers' continuous batching."""
    ours, theirs = (_rate(result, model, batch(128), case) for case in (DEFAULT, CONTINUOUS))
    return None if ours is None or not theirs else ours / theirs


def lost_over_http(result: GpuResult, model: str, level: int) -> float | None:
    """Percent of tokens/s: the same closed loop over HTTP and offline."""
    offline, over_http = (_rate(result, model, closed_loop(level), case) for case in (DEFAULT, HTTP))
    return None if over_http is None or not offline else 100 * (1 - over_http / offline)


def _rate(result: GpuResult, model: str, workload: str, case: str = DEFAULT) -> float | None:
    return result.median(TOKENS_PER_S, model=model, case=case, workload=workload)


def _at_least(title: str, wanted: float, reached: float | None) -> Target:
    return _target(title, f"at least {wanted:,.0f}", reached, lambda value: value >= wanted, is_speed=True)


def _lost(result: GpuResult, model: str, level: int) -> Target:
    title = f"lost over HTTP at c={level}, % of tokens/s"
    reached = lost_over_http(result, model, level)
    failed = result.median(FAILED, model=model, case=HTTP, workload=closed_loop(level))
    wanted = f"at most {_MOST_LOST:.0f}"
    return _target(title, wanted, reached, lambda value: value <= _MOST_LOST and not failed, is_speed=True)


def _equality(result: GpuResult) -> Target:
    title = "greedy tokens equal to transformers' generate in float32, %"
    return _target(title, "100", result.median(EQUAL, case=DEFAULT, workload=GREEDY), lambda value: value == 100.0)


def _errors(result: GpuResult) -> Target:
    """Against what transformers' own rounding in that dtype comes to."""
    workload = f"{LOGITS}, {result.settings['dtype']}"
    ours, theirs = (result.median(title, case=DEFAULT, workload=workload) for title in (ERROR, REFERENCE_ERROR))
    ratio = None if ours is None or theirs is None else ours / max(theirs, 1e-3)
    title = f"error of {workload}, times transformers' own"
    return _target(title, f"at most {_MOST_ERROR}", ratio, lambda value: value <= _MOST_ERROR)


def _tests(result: GpuResult) -> Target:
    counts = [result.median(title, workload=TESTS) for title in (PASSED, FAILED, NOT_RUN)]
    if any(count is None for count in counts):
        return Target("tests of the kernels", "all pass", UNKNOWN, None)
    passed, failed, not_run = (int(count or 0) for count in counts)
    reached = f"{passed} passed, {failed} failed, {not_run} not run"
    return Target("tests of the kernels", "all pass", reached, passed > 0 and failed == 0 and not_run == 0)


def _target(
    title: str, wanted: str, reached: float | None, holds: Callable[[float], bool], *, is_speed: bool = False
) -> Target:
    if reached is None:
        return Target(title, wanted, UNKNOWN, None, is_speed)
    shown = f"{reached:,.0f}" if abs(reached) >= 1000 else f"{reached:.3g}"
    return Target(title, wanted, shown, holds(reached), is_speed)
