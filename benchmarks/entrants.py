"""Those that are measured in turn: servers started here, servers that run already, and transformers offline."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop
from rich.console import Console

from benchmarks.child_process import ChildProcess
from benchmarks.comparison import OFFLINE
from benchmarks.hf_labels import METHODS
from benchmarks.http_exchange import ServerAddress
from benchmarks.peers import HOST, Command, Peer, Task, Tools, free_port, require_module
from benchmarks.probe import probe
from benchmarks.progress import Bars
from benchmarks.prompts import Lengths
from benchmarks.records import BenchmarkResult, Level, Run
from benchmarks.session import Plan, Session
from vfastml.engine.interrupts import interrupts_held


@dataclass
class Measured:
    """What is known of one entrant so far."""

    endpoint: str
    runs: list[Run] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)


class Entrant(Protocol):
    """Takes one turn in each repeat."""

    label: str
    measured: Measured

    def turn(self, repeat: int) -> None:
        """Measures every level once. Raises BenchmarkError; what was measured before that is kept."""

    def close(self) -> None:
        """Stops what is left running."""


@dataclass(frozen=True)
class Asker:
    """How servers are asked over HTTP: all of them alike."""

    plan: Plan
    endpoint: str
    timeout_s: float
    console: Console
    api_key: str | None = None
    """That each of them is sent: a server without keys takes any."""

    def measure(
        self, label: str, url: str, repeat: int, measured: Measured, level_begins: Callable[[], None] = lambda: None
    ) -> None:
        """Probes, warms up, and measures every level. Raises BenchmarkError."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._measure(label, url, repeat, measured, level_begins))

    async def _measure(
        self, label: str, url: str, repeat: int, measured: Measured, level_begins: Callable[[], None]
    ) -> None:
        address, rng = ServerAddress.parse(url, self.api_key), random.Random(self.plan.seed)
        probed = await probe(address, self.endpoint, None, self.timeout_s, rng)
        measured.facts = probed.facts
        session = Session(probed, self.plan)
        await session.warm_up()
        with Bars(self.console, self.plan.repeats, label) as bars:

            def run_begins(level: Level, repeat: int, requests: int) -> None:
                level_begins()
                bars.run_begins(level, repeat, requests)

            try:
                await session.measure_once(repeat, run_begins, bars.one_done)
            finally:
                measured.runs += session.runs


class _WithChild:
    """Has one process at a time, and never loses it."""

    def __init__(self, label: str, log: Path) -> None:
        self.label = label
        self._log = log
        self._child: ChildProcess | None = None

    def close(self) -> None:
        """See Entrant."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _start(self, words: list[str], environment: dict[str, str]) -> ChildProcess:
        with interrupts_held():  # between its start and its place here, nobody would stop it
            self._child = ChildProcess(self.label, words, environment, self._log)
        return self._child


class StartedServer(_WithChild):
    """Started for each turn, and stopped after it, unless it is to keep running."""

    def __init__(
        self,
        label: str,
        peer: Peer,
        tools: Tools,
        task: Task,
        asker: Asker,
        log: Path,
        *,
        flags: list[str],
        start_timeout_s: float,
        keep_running: bool,
    ) -> None:
        super().__init__(label, log)
        self.measured = Measured(asker.endpoint)
        self._peer = peer
        self._flags = flags
        self._asker = asker
        self._start_timeout_s = start_timeout_s
        self._keep_running = keep_running
        self._port = free_port()
        self._command: Command = peer.command(tools, task, self._port)

    def turn(self, repeat: int) -> None:
        """See Entrant."""
        try:
            child = self._child or self._start_ready()
            memory: list[float] = []
            self._asker.measure(
                self.label, self._url(), repeat, self.measured, lambda: memory.append(child.resident_mb())
            )
            self.measured.resident_mb.append(max(*memory, child.resident_mb()))
        finally:
            if not self._keep_running:
                self.close()

    def _start_ready(self) -> ChildProcess:
        child = self._start([*self._command.words, *self._flags], self._command.environment)
        self.measured.ready_s.append(child.wait_ready(self._url() + self._peer.ready_path, self._start_timeout_s))
        return child

    def _url(self) -> str:
        return f"http://{HOST}:{self._port}"


class RunningServer:
    """At a URL; nothing is known of its process."""

    def __init__(self, label: str, url: str, asker: Asker) -> None:
        self.label = label
        self.measured = Measured(asker.endpoint)
        self._url = url
        self._asker = asker

    def turn(self, repeat: int) -> None:
        """See Entrant."""
        self._asker.measure(self.label, self._url, repeat, self.measured)

    def close(self) -> None:
        """See Entrant."""


class Offline(_WithChild):
    """A method of transformers, in a process of its own for each turn."""

    def __init__(self, label: str, task: Task, plan: Plan, lengths: Lengths, log: Path) -> None:
        require_module("transformers", f"--peers without {label}")
        super().__init__(label, log)
        self.measured = Measured(OFFLINE)
        self._task = task
        batches = ",".join(str(level.concurrency) for level in plan.levels)
        self._words = [sys.executable, "-m", "benchmarks.hf_generate", "--method", METHODS[label], "--repeats", "1"]
        self._words += ["--model-uri", str(task.folder), "--dtype", task.dtype, "--batch", batches]
        self._words += ["--device", "cuda:0" if task.has_gpu else "cpu", "--label", label]
        self._words += ["--input-tokens", str(lengths.input_tokens), "--output-tokens", str(lengths.output_tokens)]
        self._seed = plan.seed

    def turn(self, repeat: int) -> None:
        """See Entrant."""
        with tempfile.TemporaryDirectory() as folder:
            where = ["--output", folder, "--seed", str(self._seed + repeat)]
            try:
                self._start([*self._words, *where], {"HF_HUB_OFFLINE": "1"}).wait_end()
            finally:
                self.close()
            (written,) = Path(folder).glob("*.json")
            self._take(BenchmarkResult.load(written), repeat)

    def _take(self, result: BenchmarkResult, repeat: int) -> None:
        for run in result.runs:
            run.repeat = repeat
        facts = dict(result.server)
        self.measured.ready_s += facts.pop("ready_s")
        self.measured.resident_mb += facts.pop("resident_mb")
        self.measured.facts = facts | {"model": self._task.name}
        self.measured.runs += result.runs
