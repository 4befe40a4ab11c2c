"""The same engine behind HTTP: gateway and model server as processes of their own, and the client of
`benchmarks.serve`."""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.engine_titles import TOKENS_PER_S
from benchmarks.entrants import Asker, StartedServer
from benchmarks.errors import BenchmarkError
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import part_program
from benchmarks.gpu.tasks import ServingTask
from benchmarks.gpu.titles import FAILED, HTTP, closed_loop
from benchmarks.peers import OWN, Task, Tools
from benchmarks.prompts import Lengths, RandomPrompts
from benchmarks.records import Level, Run
from benchmarks.session import Plan

_REQUEST_S = 120.0
_TAIL = 4000
"""Of the server's log, in characters, where it broke."""
_SCALES = {"ttft_p50_s": "TTFT p50, ms", "ttft_p99_s": "TTFT p99, ms", "tpot_p50_s": "TPOT p50, ms"}


def measure(task: ServingTask, found: MeasurementFile) -> None:
    """One server for all levels. What was measured before it broke, or was stopped, is kept."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        server = _server(task, log)
        try:
            server.turn(1)
        except BenchmarkError:
            print(log.read_text(errors="replace")[-_TAIL:])
            raise
        finally:
            for run in server.measured.runs:
                found.add(_measurement(task, run))
            server.close()


def _server(task: ServingTask, log: Path) -> StartedServer:
    lengths = Lengths(task.input_tokens, task.output_tokens, 0.0)
    plan = Plan(
        RandomPrompts(lengths),
        [Level(math.inf, level) for level in task.levels],
        repeats=1,
        num_prompts=task.requests,
        warmup=max(task.levels),
        seed=task.seed,
    )
    peer_task = Task(
        folder=Path(task.folder),
        name=task.model,
        dtype=task.dtype,
        cores=0,
        seats=max(task.levels),
        row_tokens=task.input_tokens + task.output_tokens,
        has_gpu=True,
    )
    return StartedServer(
        HTTP,
        OWN,
        Tools(),
        peer_task,
        Asker(plan, "completions", _REQUEST_S, Console(quiet=True)),
        log,
        flags=task.flags,
        start_timeout_s=task.start_timeout_s,
        keep_running=False,
    )


def _measurement(task: ServingTask, run: Run) -> Measurement:
    metrics = run.metrics
    figures = {FAILED: float(metrics.failed), "in, mean": metrics.mean_input_tokens or 0.0}
    if metrics.output_tokens_per_s is not None:
        figures[TOKENS_PER_S] = metrics.output_tokens_per_s
    for name, title in _SCALES.items():
        if (value := getattr(metrics, name)) is not None:
            figures[title] = 1e3 * value
    if metrics.client_cpu is not None:
        figures["client, % of a core"] = 100 * metrics.client_cpu
    errors = [record.error for record in run.records if record.error]
    return Measurement(
        part=task.part,
        model=task.model,
        case=HTTP,
        workload=closed_loop(run.concurrency),
        settings={"sequences": metrics.requests, "in": task.input_tokens, "out": task.output_tokens},
        figures=figures,
        notes=errors[:1],
    )


if __name__ == "__main__":
    sys.exit(part_program(measure, ServingTask))
