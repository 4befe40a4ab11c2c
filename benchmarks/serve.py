"""Measure an OpenAI-compatible server: `python -m benchmarks.serve --url http://127.0.0.1:8080`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.completion import PATHS
from benchmarks.errors import BenchmarkError
from benchmarks.flags import counts, new_parser, new_seed, not_negative, positive, ratio, without_secret
from benchmarks.http_exchange import ServerAddress
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER, publish
from benchmarks.probe import Probed, probe
from benchmarks.prompts import Workload
from benchmarks.records import BenchmarkResult
from benchmarks.session import Plan, Session

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 nothing could be measured or a request failed, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    benchmark = ServeBenchmark(args, given, Console())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(benchmark.run())
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        benchmark.finish()
        return INTERRUPTED
    return benchmark.finish()


class ServeBenchmark:
    """One call of the program."""

    def __init__(self, args: argparse.Namespace, given: list[str], console: Console) -> None:
        workload = Workload(args.input_tokens, args.output_tokens, args.range_ratio)
        self._args = args
        self._given = given
        self._console = console
        self._plan = Plan(workload, args.concurrency, args.repeats, args.num_prompts, args.warmup, args.seed)
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
        with _Bars(self._console, args.repeats) as bars:
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
            command=["python", "-m", "benchmarks.serve", *without_secret(self._given)],
            settings={
                "endpoint": args.endpoint,
                "input_tokens": args.input_tokens,
                "output_tokens": args.output_tokens,
                "range_ratio": args.range_ratio,
                "repeats": args.repeats,
                "num_prompts": args.num_prompts,
                "warmup": args.warmup,
                "seed": args.seed,
            },
            server={"url": args.url, **probed.facts},
            machine=self._machine,
            runs=session.runs,
        )


class _Bars:
    """Drawn when a request has ended, and only then: a clock of its own would take time from the server."""

    def __init__(self, console: Console, repeats: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._repeats = repeats
        self._task: TaskID | None = None

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def run_begins(self, concurrency: int, repeat: int, requests: int) -> None:
        title = f"c={concurrency}, run {repeat} of {self._repeats}"
        self._task = self._progress.add_task(title, total=requests)
        self._progress.refresh()

    def one_done(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=1, refresh=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.serve", "Closed loop, streamed, new random prompts in every run.")
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8080", help="of the server, with or without /v1")
    add("--concurrency", type=counts, default="1,8,32", metavar="N,N", help="requests in flight")
    add("--input-tokens", type=positive, default=128, metavar="N", help="mean length of a prompt")
    add("--output-tokens", type=positive, default=64, metavar="N", help="mean length of an answer")
    add("--range-ratio", type=ratio, default=0.5, metavar="R", help="lengths are uniform in N*(1-R) to N*(1+R)")
    add("--endpoint", choices=tuple(PATHS), default="completions", help="which API is asked")
    add("--model", metavar="NAME", help="default: the first that the server lists")
    add("--api-key", metavar="KEY", help="sent as a bearer token; never stored")
    add("--num-prompts", type=positive, metavar="N", help="requests of a run; default: 4 x concurrency, at least 8")
    add("--repeats", type=positive, default=3, metavar="N", help="runs at each concurrency")
    add("--warmup", type=not_negative, default=4, metavar="N", help="requests before the first run that do not count")
    add("--seed", type=int, metavar="N", help="of prompts and lengths; default: a new one, which is printed")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="for a request to end")
    add("--label", help="what tables and files call this server; default: its owner in /v1/models")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
