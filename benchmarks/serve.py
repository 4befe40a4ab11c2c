"""Measure an OpenAI-compatible server: `python -m benchmarks.serve --url http://127.0.0.1:8080`."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.completion import PATHS
from benchmarks.errors import BenchmarkError
from benchmarks.flags import (
    counts,
    milliseconds,
    new_parser,
    new_seed,
    not_negative,
    positive,
    rates,
    recorded,
)
from benchmarks.http_exchange import ServerAddress
from benchmarks.machine import this_machine
from benchmarks.metrics import Goals
from benchmarks.outcome import DEFAULT_FOLDER, publish
from benchmarks.probe import Probed, probe
from benchmarks.progress import Bars
from benchmarks.records import BenchmarkResult, Level
from benchmarks.session import Plan, Session
from benchmarks.stopping import INTERRUPTED, until_stopped
from benchmarks.workload_flags import add_workload_flags, workload_of, workload_settings

_CONCURRENCY = [1, 8, 32]
_OPEN_LOOP_PROMPTS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 nothing could be measured or a request failed, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    benchmark = ServeBenchmark(args, given, Console())
    status = until_stopped(lambda: _run(benchmark))
    if status not in (0, INTERRUPTED):
        return status
    return max(status, benchmark.finish())  # stopped or not, what was measured is shown


def _run(benchmark: ServeBenchmark) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(benchmark.run())
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class ServeBenchmark:
    """One call of the program."""

    def __init__(self, args: argparse.Namespace, given: list[str], console: Console) -> None:
        self._args = args
        self._given = given
        self._console = console
        self._plan = _plan(args)
        self._machine = this_machine()
        self._date = datetime.now().astimezone()
        self._probed: Probed | None = None
        self._session: Session | None = None

    async def run(self) -> None:
        """Probe, warm up, measure. Raises BenchmarkError."""
        args = self._args
        server = ServerAddress.parse(args.url, args.api_key)
        self._probed = await probe(server, args.endpoint, args.model, args.timeout, random.Random(args.seed))
        self._announce(self._probed)
        self._session = Session(self._probed, self._plan)
        await self._session.warm_up()
        with Bars(self._console, args.repeats) as bars:
            await self._session.measure_all(bars.run_begins, bars.one_done)

    def finish(self) -> int:
        """Show and store what was measured; the exit status."""
        if self._probed is None or self._session is None or not self._session.runs:
            print("Nothing was measured.", file=sys.stderr)
            return 1
        result = self._result(self._probed, self._session)
        publish(result, self._args.output, self._console)
        return 1 if any(run.metrics.failed for run in result.runs) else 0

    def _announce(self, probed: Probed) -> None:
        facts, args = probed.facts, self._args
        named = [
            facts["model"],
            facts["owned_by"],
            facts["server_header"],
            facts.get("version"),
            facts.get("build_info"),
        ]
        what = ", ".join(str(each) for each in named if each)
        self._console.print(f"{args.url}: {what}; {args.endpoint}; seed {args.seed}", highlight=False, soft_wrap=True)
        if facts["length_way"] == "nothing":
            self._console.print("The server takes no field against early ends: answers may be short.", style="yellow")

    def _result(self, probed: Probed, session: Session) -> BenchmarkResult:
        args = self._args
        server = probed.asking.server
        return BenchmarkResult(
            label=args.label or probed.facts["owned_by"] or f"{server.host}-{server.port}",
            date=self._date.strftime("%Y%m%d-%H%M%S"),
            command=["python", "-m", "benchmarks.serve", *recorded(self._given)],
            settings={
                "endpoint": args.endpoint,
                **workload_settings(args),
                "levels": [str(level) for level in self._plan.levels],
                "repeats": args.repeats,
                "num_prompts": self._plan.num_prompts,
                "warmup": args.warmup,
                "seed": args.seed,
                "goal_ttft_s": args.goal_ttft_s,
                "goal_tpot_s": args.goal_tpot_s,
            },
            server={"url": args.url, **probed.facts},
            machine=self._machine,
            runs=session.runs,
        )


def _plan(args: argparse.Namespace) -> Plan:
    """Without a rate, a closed loop; with one, `--concurrency` is a cap, and by default there is none."""
    num_prompts, caps = args.num_prompts, args.concurrency
    if args.request_rate and caps is None:
        num_prompts = num_prompts or _OPEN_LOOP_PROMPTS
        caps = [num_prompts]
    levels = [Level(rate, cap) for rate in args.request_rate or [math.inf] for cap in caps or _CONCURRENCY]
    goals = Goals(args.goal_ttft_s, args.goal_tpot_s)
    return Plan(workload_of(args), levels, args.repeats, num_prompts, args.warmup, args.seed, goals)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.serve", "Closed or open loop, streamed, new prompts in every run.")
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8080", help="of the server, with or without /v1")
    flight = "requests in flight; default: 1,8,32, and no limit where a rate is given"
    add("--concurrency", type=counts, metavar="N,N", help=flight)
    rate = "open loop: requests a second, Poisson arrivals; inf: all at once"
    add("--request-rate", type=rates, metavar="R,R", help=rate)
    add_workload_flags(parser)
    add("--endpoint", choices=tuple(PATHS), default="completions", help="which API is asked")
    add("--model", metavar="NAME", help="default: the first that the server lists")
    add("--api-key", metavar="KEY", help="sent as a bearer token; never stored")
    requests = f"requests of a run; default: 4 x concurrency, at least 8; without a limit {_OPEN_LOOP_PROMPTS}"
    add("--num-prompts", type=positive, metavar="N", help=requests)
    add("--goal-ttft-ms", type=milliseconds, dest="goal_ttft_s", metavar="MS", help="for goodput: longest good TTFT")
    add("--goal-tpot-ms", type=milliseconds, dest="goal_tpot_s", metavar="MS", help="for goodput: longest good TPOT")
    add("--repeats", type=positive, default=3, metavar="N", help="runs at each concurrency")
    add("--warmup", type=not_negative, default=4, metavar="N", help="requests before the first run that do not count")
    add("--seed", type=int, metavar="N", help="of prompts and lengths; default: a new one, which is printed")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="for a request to end")
    add("--label", help="what tables and files call this server; default: its owner in /v1/models")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
