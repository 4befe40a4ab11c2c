"""What a server does with more than it can carry: `python -m benchmarks.overload --url http://127.0.0.1:8080`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import psutil
import uvloop
from rich.console import Console

from benchmarks.closed_loop import closed_loop
from benchmarks.completion import PATHS, stream_completion
from benchmarks.errors import BenchmarkError
from benchmarks.flags import counts, new_parser, new_seed, not_negative, positive, rates, recorded
from benchmarks.http_exchange import ServerAddress
from benchmarks.machine import this_machine
from benchmarks.open_loop import open_loop, poisson_arrivals
from benchmarks.outcome import DEFAULT_FOLDER, print_notes
from benchmarks.overload_records import LEGEND, OverloadResult, OverloadRun, draw, notes, table
from benchmarks.probe import Probed, probe
from benchmarks.prompts import Prompt
from benchmarks.records import RequestRecord
from benchmarks.stopping import until_stopped
from benchmarks.workload_flags import add_workload_flags, workload_of, workload_settings

_LOOK_S = 0.2
"""Between two looks at the memory."""
_ROUNDS = 4
"""Of the closed loop that finds out how many requests the measured one needs: requests for each place."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 nothing could be measured or a request broke, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    return until_stopped(lambda: _run(args, given))


def _run(args: argparse.Namespace, given: list[str]) -> int:
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        processes = [psutil.Process(pid) for pid in args.pid]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            probed, runs = runner.run(_measure_all(args, processes))
    except (BenchmarkError, psutil.NoSuchProcess) as error:
        print(error, file=sys.stderr)
        return 1
    settings = workload_settings(args) | {
        name: getattr(args, name) for name in ("concurrency", "seconds", "times", "seed", "endpoint")
    }
    result = OverloadResult(
        date=date,
        command=["python", "-m", "benchmarks.overload", *recorded(given)],
        settings=settings,
        server={"url": args.url, **probed.facts},
        machine=machine,
        runs=runs,
    )
    _publish(result, args.output)
    return 1 if any(run.failed for run in runs) else 0


async def _measure_all(args: argparse.Namespace, processes: list[psutil.Process]) -> tuple[Probed, list[OverloadRun]]:
    """In each repeat first what the server can carry, then more than that. Raises BenchmarkError."""
    server = ServerAddress.parse(args.url, args.api_key)
    probed = await probe(server, args.endpoint, args.model, args.timeout, random.Random(args.seed))
    load = _Load(probed, args, processes)
    runs = []
    for repeat in range(1, args.repeats + 1):
        runs.append(peak := await load.closed(repeat))
        runs += [await load.open(times, peak.answers_per_s, repeat) for times in args.times]
    return probed, runs


class _Load:
    """Asks one server."""

    def __init__(self, probed: Probed, args: argparse.Namespace, processes: list[psutil.Process]) -> None:
        self._probed = probed
        self._args = args
        self._workload = workload_of(args)
        self._processes = processes

    async def closed(self, repeat: int) -> OverloadRun:
        """As many in flight as the server is meant to run at a time, for about `--seconds`. Raises BenchmarkError."""
        few = _ROUNDS * self._args.concurrency
        first = await self._closed(0, few)
        if not first.tokens_per_s:
            reason = first.records[0].error or "the server does not say how many tokens it made"
            raise BenchmarkError(f"What the server can carry could not be measured: {reason}.")
        return await self._closed(repeat, max(few, round(first.answers_per_s * self._args.seconds)))

    async def _closed(self, repeat: int, count: int) -> OverloadRun:
        prompts, places = self._prompts(count, f"closed {repeat}"), self._args.concurrency
        return await self._measure(None, None, repeat, prompts, lambda ask: closed_loop(prompts, places, ask))

    async def open(self, times: float, peak_per_s: float, repeat: int) -> OverloadRun:
        """So many times what it can carry, for `--seconds`, without a bound on those in flight."""
        offered_per_s = times * peak_per_s
        count = max(2, round(offered_per_s * self._args.seconds))
        prompts = self._prompts(count, f"{times} {repeat}")
        due_s = poisson_arrivals(offered_per_s, count, random.Random(f"{self._args.seed}/{times}/{repeat}"))
        return await self._measure(
            times,
            offered_per_s,
            repeat,
            prompts,
            lambda ask: open_loop(due_s, count, lambda number: ask(prompts[number])),
        )

    async def _measure(
        self,
        times: float | None,
        offered_per_s: float | None,
        repeat: int,
        prompts: list[Prompt],
        pace: Callable[[Callable[[Prompt], Awaitable[None]]], Awaitable[None]],
    ) -> OverloadRun:
        records: list[RequestRecord] = []
        began = time.perf_counter()

        async def ask(prompt: Prompt) -> None:
            records.append(await stream_completion(self._probed.asking, prompt, began))

        with _watched(self._processes) as seen_mb:
            await pace(ask)
        return OverloadRun(
            times=times,
            repeat=repeat,
            offered_per_s=offered_per_s,
            rss_before_mb=seen_mb[0] if seen_mb else None,
            rss_most_mb=max(seen_mb) if seen_mb else None,
            records=records,
        )

    def _prompts(self, count: int, name: str) -> list[Prompt]:
        seed = random.Random(f"{self._args.seed}/{name}").getrandbits(32)
        return self._workload.prompts(count, self._probed.fit, seed)


@contextlib.contextmanager
def _watched(processes: list[psutil.Process]) -> Iterator[list[float]]:
    """Fills the list with what all of them have in memory, from now on; it stays empty without any."""
    seen_mb: list[float] = []

    async def look() -> None:
        while processes:
            seen_mb.append(sum(process.memory_info().rss for process in processes) / 1e6)
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield seen_mb
    finally:
        looking.cancel()


def _publish(result: OverloadResult, folder: Path) -> None:
    console = Console()
    console.print(table(result).rich())
    console.print(LEGEND, highlight=False)
    console.print(f"{result.machine}", highlight=False)
    print_notes(notes(result), console)
    stem = folder / f"overload-{result.date}"
    result.save(stem.with_suffix(".json"))
    draw(result, stem.with_suffix(".png"))
    console.print(f"written: {stem}.json and .png", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.overload", "More requests than a server can carry, whoever waits.")
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8080", help="of the server, with or without /v1")
    peak = "in flight while it is measured what the server can carry: as many as it runs at a time"
    add("--concurrency", type=positive, default=32, metavar="N", help=peak)
    add("--times", type=rates, default=[1.0, 3.0], metavar="X,X", help="how much of that is offered (default: 1,3)")
    add("--seconds", type=positive, default=20, metavar="S", help="of each offer")
    add("--pid", type=counts, default=[], metavar="PID,PID", help="processes of the server, to look at their memory")
    add_workload_flags(parser)
    add("--endpoint", choices=tuple(PATHS), default="completions", help="which API is asked")
    add("--model", metavar="NAME", help="default: the first that the server lists")
    add("--api-key", metavar="KEY", help="sent as a bearer token; never stored")
    add("--timeout", type=positive, default=300, metavar="S", help="for one request")
    add("--repeats", type=positive, default=1, metavar="N", help="runs of each kind, in turns")
    add("--seed", type=not_negative, metavar="N", help="default: a new one")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
