"""`python -m benchmarks.kernels --device cuda`: the kernels for GPUs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime

import torch
from rich.console import Console

from benchmarks.flags import recorded
from benchmarks.gpu.kernel_cases import KernelSizes
from benchmarks.gpu.kernel_suite import KernelSuite, step_us
from benchmarks.kernel_bench import DTYPES, ModelShape
from benchmarks.kernel_outcome import publish
from benchmarks.kernel_records import KernelResult, KernelRun
from benchmarks.machine import this_machine
from benchmarks.outcome import print_notes
from benchmarks.tables import UNKNOWN, TextTable


def run_on_gpu(args: argparse.Namespace, given: list[str]) -> int:
    """The exit status: 0, 1 if there is no GPU, or kernels could not run on it."""
    if not torch.cuda.is_available():
        print("torch sees no GPU: leave out --device, or see benchmarks/gpu.sh --dry", file=sys.stderr)
        return 1
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    suites = [KernelSuite(_sizes(args, name), args.seconds) for name in args.dtype if name in DTYPES]
    runs = [run for suite in suites for run in suite.runs(args.kernels)]
    result = KernelResult(
        level=torch.cuda.get_device_name(args.device),
        date=date,
        command=["python", "-m", "benchmarks.kernels", *recorded(given)],
        settings={name: value for name, value in vars(args).items() if name != "output"},
        machine=machine,
        limits=[suite.limits for suite in suites],
        runs=runs,
    )
    publish(result, args.output)
    console = Console()
    for name in args.dtype:
        console.print(step_table([run for run in runs if run.number_format == name], name).rich())
    broken = [f"{family} broke off: {why}" for suite in suites for family, why in suite.failures.items()]
    print_notes(broken, console)
    return 1 if broken else 0


def step_table(runs: Sequence[KernelRun], number_format: str) -> TextTable:
    """Where a decode step's time goes: a column for each number of rows."""
    steps = step_us(list(runs))
    kernels = list(dict.fromkeys(kernel for parts in steps.values() for kernel in parts))
    rows = [[kernel, *(_cell(parts, kernel) for parts in steps.values())] for kernel in kernels]
    rows.append(["all", *(f"{sum(parts.values()):.0f}" for parts in steps.values())])
    return TextTable(f"a decode step, {number_format}: us (%)", ["", *(f"n={rows}" for rows in steps)], rows)


def _cell(parts: dict[str, float], kernel: str) -> str:
    if kernel not in parts:
        return UNKNOWN
    return f"{parts[kernel]:.0f} ({100 * parts[kernel] / sum(parts.values()):.0f})"


def _sizes(args: argparse.Namespace, dtype: str) -> KernelSizes:
    shape = ModelShape(args.hidden, args.intermediate, args.heads, args.kv_heads, args.head_dim, args.vocab)
    return KernelSizes(
        shape=shape,
        layers=args.layers,
        device=torch.device(args.device),
        dtype=DTYPES[dtype],
        rows=args.rows,
        prefill_rows=max(args.prompts),
        context=max(args.contexts),
    )
