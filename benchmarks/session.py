"""All runs against one server."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.closed_loop import closed_loop
from benchmarks.completion import stream_completion, whole_completion
from benchmarks.errors import BenchmarkError
from benchmarks.http_exchange import ExchangeError
from benchmarks.metrics import NO_GOALS, Goals, measure
from benchmarks.open_loop import open_loop, poisson_arrivals
from benchmarks.probe import Probed, usage_of
from benchmarks.prompts import Prompt, Workload
from benchmarks.records import (
    TOKENS_ASKED_AGAIN,
    TOKENS_STREAMED,
    TOKENS_UNKNOWN,
    Level,
    RequestRecord,
    Run,
    RunMetrics,
)

_WARM_UP_TOKENS = 8
"""The longest answer before the first run."""

RunBegins = Callable[[Level, int, int], None]
"""Gets level, repeat (from 1) and the number of requests."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    workload: Workload
    levels: list[Level]
    repeats: int
    num_prompts: int | None
    """For each run; None is four for each place, and at least eight."""
    warmup: int
    seed: int
    goals: Goals = NO_GOALS

    def prompts_at(self, level: Level) -> int:
        """How many a run at that level has."""
        return self.num_prompts or max(8, 4 * level.concurrency)

    def run_seed(self, level: Level, repeat: int) -> int:
        """Another one for each run; a repeat of 0 is the warm-up."""
        return random.Random(f"{self.seed}/{level}/{repeat}").getrandbits(32)


class Session:
    """Runs the plan. `runs` can be read at any time, also after `measure_all` was cancelled."""

    def __init__(self, probed: Probed, plan: Plan) -> None:
        self.runs: list[Run] = []
        self._probed = probed
        self._plan = plan

    async def warm_up(self) -> None:
        """Requests with short answers that are not counted. Raises BenchmarkError if one fails."""
        records: list[RequestRecord] = []
        busiest = max(self._plan.levels, key=lambda level: level.concurrency)
        seed = self._plan.run_seed(busiest, 0)
        prompts = self._plan.workload.prompts(self._plan.warmup, self._probed.fit, seed)

        async def ask(prompt: Prompt) -> None:
            short = replace(prompt, output_tokens=min(prompt.output_tokens, _WARM_UP_TOKENS))
            records.append(await stream_completion(self._probed.asking, short, time.perf_counter()))

        await closed_loop(prompts, busiest.concurrency, ask)
        for record in records:
            if record.error:
                raise BenchmarkError(f"A request before the first run failed: {record.error}.")

    async def measure_all(self, run_begins: RunBegins, one_done: Callable[[], None]) -> None:
        """Every level once, then all of them again, so that a machine that slows down slows all levels."""
        for repeat in range(1, self._plan.repeats + 1):
            await self.measure_once(repeat, run_begins, one_done)

    async def measure_once(self, repeat: int, run_begins: RunBegins, one_done: Callable[[], None]) -> None:
        """Every level; repeats count from 1."""
        for level in self._plan.levels:
            run_begins(level, repeat, self._plan.prompts_at(level))
            await self._measure(level, repeat, one_done)

    async def _measure(self, level: Level, repeat: int, one_done: Callable[[], None]) -> None:
        seed = self._plan.run_seed(level, repeat)
        prompts = self._plan.workload.prompts(self._plan.prompts_at(level), self._probed.fit, seed)
        asked: list[_Asked] = []
        due_s = poisson_arrivals(level.request_rate, len(prompts), random.Random(seed)) if level.is_open_loop else None
        began, cpu_began = time.perf_counter(), time.process_time()

        async def ask(number: int) -> None:
            record = await stream_completion(self._probed.asking, prompts[number], began)
            record.late_s = max(0.0, record.started_s - due_s[number]) if due_s else 0.0
            asked.append(_Asked(prompts[number], record))
            one_done()

        try:
            await _ask_all(len(prompts), due_s, level.concurrency, ask)
        finally:  # also when cancelled: what has ended is kept
            client_cpu_s = time.process_time() - cpu_began
            if asked:
                interrupted = len(asked) < len(prompts)
                metrics = measure([each.record for each in asked], client_cpu_s, self._plan.goals)
                self.runs.append(_new_run(level, repeat, seed, asked, metrics, interrupted=interrupted))
        if self.runs[-1].tokens_from == TOKENS_UNKNOWN:
            await self._count_by_asking_again(asked, self.runs[-1], client_cpu_s)

    async def _count_by_asking_again(self, asked: Sequence[_Asked], run: Run, client_cpu_s: float) -> None:
        """After the clock has stopped: the same requests, not streamed, for the usage that the streams lacked."""
        await closed_loop([each for each in asked if each.is_uncounted], run.concurrency, self._count)
        if not any(each.is_uncounted for each in asked):
            run.tokens_from = TOKENS_ASKED_AGAIN
            run.metrics = measure(run.records, client_cpu_s, self._plan.goals)

    async def _count(self, asked: _Asked) -> None:
        try:
            usage = usage_of(await whole_completion(self._probed.asking, asked.prompt))
        except ExchangeError:
            return
        if usage is not None:
            asked.record.input_tokens = usage.prompt_tokens
            asked.record.output_tokens = usage.completion_tokens


@dataclass(frozen=True)
class _Asked:
    prompt: Prompt
    record: RequestRecord

    @property
    def is_uncounted(self) -> bool:
        return self.record.error is None and self.record.output_tokens is None


async def _ask_all(
    count: int, due_s: list[float] | None, concurrency: int, ask: Callable[[int], Awaitable[None]]
) -> None:
    if due_s is None:
        await closed_loop(range(count), concurrency, ask)
    else:
        await open_loop(due_s, concurrency, ask)


def _new_run(
    level: Level, repeat: int, seed: int, asked: Sequence[_Asked], metrics: RunMetrics, *, interrupted: bool
) -> Run:
    return Run(
        concurrency=level.concurrency,
        request_rate=level.request_rate if level.is_open_loop else None,
        repeat=repeat,
        seed=seed,
        tokens_from=TOKENS_UNKNOWN if any(each.is_uncounted for each in asked) else TOKENS_STREAMED,
        interrupted=interrupted,
        metrics=metrics,
        records=[each.record for each in asked],
    )
