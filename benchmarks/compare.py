"""This server and its peers on one machine, in turns: `python -m benchmarks.compare --peers vllm,llama.cpp`."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from benchmarks.comparison import OFFLINE, side_by_side
from benchmarks.completion import PATHS
from benchmarks.entrants import Asker, Entrant
from benchmarks.errors import BenchmarkError
from benchmarks.flags import counts, new_parser, new_seed, not_negative, positive, recorded, recorded_text
from benchmarks.lineup import NAMES, line_up, named, peer_names
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER, print_notes
from benchmarks.peers import OWN, Task
from benchmarks.plot import draw
from benchmarks.records import BenchmarkResult, Level
from benchmarks.report import remarks
from benchmarks.session import Plan
from benchmarks.stopping import INTERRUPTED, until_stopped
from benchmarks.turn_times import TurnTimes
from benchmarks.workload_flags import add_workload_flags, workload_of, workload_settings
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model

_LEAST_SEATS = 32
"""So that a server is started alike, whichever levels are measured."""
_SPARE_TOKENS = 64
"""For a chat template, and for words that come out longer than expected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 this server could not be measured, another one failed, or a request did; 130
    Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    args.warmup = max(args.concurrency) if args.warmup is None else args.warmup
    try:
        return until_stopped(lambda: Comparison(args, given, Console()).run())
    except (BenchmarkError, ModelStoreError) as error:
        print(error, file=sys.stderr)
        return 1


class Comparison:
    """One call of the program."""

    def __init__(self, args: argparse.Namespace, given: list[str], console: Console) -> None:
        self._args = args
        self._given = given
        self._console = console
        self._machine = this_machine()
        self._date = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        levels = [Level(math.inf, concurrency) for concurrency in args.concurrency]
        self._plan = Plan(workload_of(args), levels, args.repeats, args.num_prompts, args.warmup, args.seed)
        self._logs = Path(tempfile.mkdtemp(prefix="benchmarks-compare-"))
        asker = Asker(self._plan, args.endpoint, args.timeout, console, args.api_key)
        self._lineup = line_up(args, self._task(), asker, self._logs)
        self._failed: set[str] = set()

    def run(self) -> int:
        """Measure, show, store; the exit status. If this server itself can be measured no longer, what there is until
        then is shown first."""
        self._announce()
        interrupted, broken = False, None
        with contextlib.ExitStack() as stack:
            for entrant in self._lineup.entrants:
                stack.callback(entrant.close)
            try:
                self._take_turns()
            except KeyboardInterrupt:
                print("interrupted: stopping the servers", file=sys.stderr)
                interrupted = True
            except BenchmarkError as error:
                broken = error
        results = self._results()
        if results:
            self._publish(results)
        if interrupted:
            return INTERRUPTED
        if broken is not None:
            print(broken, file=sys.stderr)
            return 1
        any_failed = any(run.metrics.failed for result in results for run in result.runs)
        return 1 if self._failed or any_failed else 0

    def _announce(self) -> None:
        labels = ", ".join(entrant.label for entrant in self._lineup.entrants)
        self._say(f"{labels}; repeats: {self._args.repeats}; seed {self._args.seed}; logs: {self._logs}")
        for name, reason in self._lineup.skipped.items():
            self._console.print(f"without {name}: {reason}", style="yellow", highlight=False, soft_wrap=True)

    def _take_turns(self) -> None:
        times = TurnTimes([entrant.label for entrant in self._lineup.entrants], self._args.repeats)
        for repeat in range(1, self._args.repeats + 1):
            for entrant in self._order(repeat):
                if entrant.label not in self._failed:
                    began = time.monotonic()
                    self._turn(entrant, repeat)
                    times.took(entrant.label, time.monotonic() - began, is_out=entrant.label in self._failed)
                    self._say(self._summary(entrant, repeat, times))

    def _order(self, repeat: int) -> list[Entrant]:
        """Each repeat begins with another one: a machine that slows down slows all alike."""
        entrants = self._lineup.entrants
        first = (repeat - 1) % len(entrants)
        return entrants[first:] + entrants[:first]

    def _turn(self, entrant: Entrant, repeat: int) -> None:
        try:
            entrant.turn(repeat)
        except BenchmarkError as error:
            if entrant is self._lineup.entrants[0]:
                raise
            self._failed.add(entrant.label)
            self._console.print(f"{entrant.label} is out: {error}", style="bold red", highlight=False, soft_wrap=True)

    def _summary(self, entrant: Entrant, repeat: int, times: TurnTimes) -> str:
        measured = entrant.measured
        parts = [f"repeat {repeat} of {self._args.repeats}, {entrant.label}"]
        parts += [f"ready after {measured.ready_s[-1]:.1f} s"] if measured.ready_s else []
        parts += [f"{measured.resident_mb[-1]:.0f} MB"] if measured.resident_mb else []
        for run in measured.runs:
            if run.repeat == repeat and run.metrics.output_tokens_per_s is not None:
                parts.append(f"{run.level} {run.metrics.output_tokens_per_s:.1f} tok/s")
        return ", ".join([*parts, times.left()])

    def _publish(self, results: list[BenchmarkResult]) -> None:
        table = side_by_side(results)
        self._console.print(table.rich())
        self._console.print(f"{self._machine}", highlight=False)
        print_notes(remarks(results), self._console)
        folder, stem = self._args.output, f"compare-{self._date}"
        for result in results:
            label = re.sub(r"[^A-Za-z0-9._-]+", "-", result.label)
            result.save(folder / f"{stem}-{label}.json")
        (folder / f"{stem}.md").write_text(table.markdown() + "\n")
        draw(results, folder / f"{stem}.png")
        self._say(f"written: {folder / stem}.md, .png, and a .json for each")

    def _results(self) -> list[BenchmarkResult]:
        return [self._result(entrant) for entrant in self._lineup.entrants if entrant.measured.runs]

    def _result(self, entrant: Entrant) -> BenchmarkResult:
        args, measured = self._args, entrant.measured
        settings = workload_settings(args) | {"endpoint": measured.endpoint, "dtype": args.dtype}
        settings |= {"range_ratio": 0.0} if measured.endpoint == OFFLINE else {}
        settings |= {name: getattr(args, name) for name in ("repeats", "num_prompts", "warmup", "seed")}
        facts = measured.facts | {"ready_s": measured.ready_s, "resident_mb": measured.resident_mb}
        if entrant.label in self._lineup.variants:
            facts["variant_of"] = OWN.name
        if flags := self._lineup.flags.get(entrant.label):
            facts["flags"] = recorded_text(flags)
        command = ["python", "-m", "benchmarks.compare", *recorded(self._given)]
        return BenchmarkResult(
            label=entrant.label,
            date=self._date,
            command=command,
            settings=settings,
            server=facts,
            machine=self._machine,
            runs=measured.runs,
        )

    def _task(self) -> Task:
        args = self._args
        stored = resolve_model(args.model_uri)
        longest = (args.input_tokens + args.output_tokens) * (1 + args.range_ratio)
        return Task(
            folder=stored.folder,
            name=stored.model_id,
            dtype=args.dtype,
            cores=self._machine.cores,
            seats=max(_LEAST_SEATS, *args.concurrency),
            row_tokens=math.ceil(longest) + _SPARE_TOKENS,
            has_gpu=bool(self._machine.gpus),
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.compare", "This server and its peers, in turns, on this machine.")
    add = parser.add_argument
    add("--peers", type=peer_names, default=",".join(NAMES), metavar="NAME,NAME", help="each if it is installed")
    add("--peer", type=named, action="append", default=[], metavar="NAME=URL", help="a server that runs; repeatable")
    variant = "this server once more, with these flags; repeatable"
    add("--variant", type=named, action="append", default=[], metavar="NAME=FLAGS", help=variant)
    add("--api-key", metavar="KEY", help="sent to all as a bearer token, for a variant that asks for one; never stored")
    add("--vllm", metavar="PATH", help="the command vllm, where it is not in PATH")
    add("--llama-server", metavar="PATH", help="the command llama-server, where it is not in PATH")
    add("--gguf", type=Path, metavar="FILE", help="the model for llama.cpp")
    add("--model-uri", default=DEFAULT_MODEL, help="as the model server takes it; its folder is given to each")
    add("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the weights")
    add("--concurrency", type=counts, default="1,8,32", metavar="N,N", help="requests in flight")
    add_workload_flags(parser)
    add("--endpoint", choices=tuple(PATHS), default="completions", help="which API is asked")
    add("--num-prompts", type=positive, metavar="N", help="requests of a run; default: 4 x concurrency, at least 8")
    add("--repeats", type=positive, default=3, metavar="N", help="turns of each server")
    warmup = "requests with short answers before each turn that do not count; default: the highest concurrency"
    add("--warmup", type=not_negative, metavar="N", help=warmup)
    add("--seed", type=int, metavar="N", help="of prompts and lengths; default: a new one, which is printed")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="for a request to end")
    add("--start-timeout", type=float, default=900.0, metavar="SECONDS", help="for a server to be ready")
    keep = "start each server once and keep all of them running; by default only one runs at a time"
    add("--keep-running", action="store_true", help=keep)
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON files and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
