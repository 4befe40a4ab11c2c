"""All runs against one server."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.closed_loop import closed_loop
from benchmarks.completion import stream_completion, whole_completion
from benchmarks.errors import BenchmarkError
from benchmarks.http_exchange import ExchangeError
from benchmarks.metrics import measure
from benchmarks.probe import Probed, usage_of
from benchmarks.prompts import Prompt, Workload
from benchmarks.records import TOKENS_ASKED_AGAIN, TOKENS_STREAMED, TOKENS_UNKNOWN, RequestRecord, Run


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    workload: Workload
    levels: list[int]
    """Concurrencies."""
    repeats: int
    num_prompts: int | None
    """For each run; None is four for each place, and at least eight."""
    warmup: int
    seed: int

    def prompts_at(self, concurrency: int) -> int:
        """How many a run at that concurrency has."""
        return self.num_prompts or max(8, 4 * concurrency)

    def run_seed(self, concurrency: int, repeat: int) -> int:
        """Another one for each run."""
        return random.Random(f"{self.seed}/{concurrency}/{repeat}").getrandbits(32)


class Session:
    """Runs the plan. `runs` can be read at any time, also after `measure_all` was cancelled."""

    def __init__(self, probed: Probed, plan: Plan) -> None:
        self.runs: list[Run] = []
        self._probed = probed
        self._plan = plan

    async def warm_up(self) -> None:
        """Requests that are not counted. Raises BenchmarkError if one fails."""
        records: list[RequestRecord] = []
        seed = self._plan.run_seed(0, 0)
        prompts = self._plan.workload.prompts(self._plan.warmup, self._probed.fit, seed)

        async def ask(prompt: Prompt) -> None:
            records.append(await stream_completion(self._probed.asking, prompt, time.perf_counter()))

        await closed_loop(prompts, max(self._plan.levels), ask)
        for record in records:
            if record.error:
                raise BenchmarkError(f"A request before the first run failed: {record.error}.")

    async def measure_all(self, run_begins: Callable[[int, int, int], None], one_done: Callable[[], None]) -> None:
        """Every level once, then all of them again, so that a machine that slows down slows all levels.

        `run_begins` gets concurrency, repeat (from 1) and the number of requests.
        """
        for repeat in range(1, self._plan.repeats + 1):
            for level in self._plan.levels:
                run_begins(level, repeat, self._plan.prompts_at(level))
                await self._measure(level, repeat, one_done)

    async def _measure(self, level: int, repeat: int, one_done: Callable[[], None]) -> None:
        seed = self._plan.run_seed(level, repeat)
        prompts = self._plan.workload.prompts(self._plan.prompts_at(level), self._probed.fit, seed)
        asked: list[_Asked] = []
        began, cpu_began = time.perf_counter(), time.process_time()

        async def ask(prompt: Prompt) -> None:
            asked.append(_Asked(prompt, await stream_completion(self._probed.asking, prompt, began)))
            one_done()

        try:
            await closed_loop(prompts, level, ask)
        finally:  # also when cancelled: what has ended is kept
            client_cpu_s = time.process_time() - cpu_began
            if asked:
                interrupted = len(asked) < len(prompts)
                self.runs.append(_new_run(level, repeat, seed, asked, client_cpu_s, interrupted=interrupted))
        if self.runs[-1].tokens_from == TOKENS_UNKNOWN:
            await self._count_by_asking_again(asked, self.runs[-1], client_cpu_s)

    async def _count_by_asking_again(self, asked: Sequence[_Asked], run: Run, client_cpu_s: float) -> None:
        """After the clock has stopped: the same requests, not streamed, for the usage that the streams lacked."""
        await closed_loop([each for each in asked if each.is_uncounted], run.concurrency, self._count)
        if not any(each.is_uncounted for each in asked):
            run.tokens_from = TOKENS_ASKED_AGAIN
            run.metrics = measure(run.records, client_cpu_s)

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


def _new_run(
    level: int, repeat: int, seed: int, asked: Sequence[_Asked], client_cpu_s: float, *, interrupted: bool
) -> Run:
    records = [each.record for each in asked]
    return Run(
        concurrency=level,
        repeat=repeat,
        seed=seed,
        tokens_from=TOKENS_UNKNOWN if any(each.is_uncounted for each in asked) else TOKENS_STREAMED,
        interrupted=interrupted,
        metrics=measure(records, client_cpu_s),
        records=records,
    )
