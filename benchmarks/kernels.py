"""Each of the kernels by itself, beside torch and beside what the machine can: `python -m benchmarks.kernels`; those
for GPUs with `--device cuda`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from benchmarks.flags import counts, new_parser, positive, recorded
from benchmarks.gpu.kernel_run import run_on_gpu
from benchmarks.gpu.kernel_suite import FAMILIES
from benchmarks.kernel_attention import attention_runs
from benchmarks.kernel_bench import DTYPES, FORMATS, Bench, ModelShape, measure_limits
from benchmarks.kernel_outcome import publish
from benchmarks.kernel_products import product_runs
from benchmarks.kernel_records import KernelResult, KernelRun, Limits
from benchmarks.kernel_rows import row_runs
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER
from benchmarks.stopping import until_stopped
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import Kernels, NoKernels
from vfastml.text_engine.cpu_kernels.levels import LEVELS
from vfastml.text_engine.cpu_kernels.single import SingleKernels

_FAMILIES_ON_CPU = ("products", "attention", "rows")
_BUILT_IN = {"hidden": 576, "intermediate": 1536, "heads": 9, "kv_heads": 3, "head_dim": 64, "vocab": 49152}
_LLAMA_8B = {"hidden": 4096, "intermediate": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 128256}
_ON_CPU = _BUILT_IN | {
    "layers": 30,
    "dtype": list(FORMATS),
    "kernels": list(_FAMILIES_ON_CPU),
    "rows": [1, 8, 32, 128],
    "contexts": [128, 1024, 4096],
    "prompts": [128, 512],
}
_ON_GPU = _LLAMA_8B | {
    "layers": 32,
    "dtype": ["bfloat16"],
    "kernels": list(FAMILIES),
    "rows": [1, 8, 32, 128, 256],
    "contexts": [1024],
    "prompts": [8192],
}
"""What is measured unless flags say otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where there are no kernels for this machine, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    args = parser.parse_args(given)
    on_gpu = torch.device(args.device).type != "cpu"
    for name, value in (_ON_GPU if on_gpu else _ON_CPU).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not on_gpu and (others := [name for name in args.kernels if name not in _FAMILIES_ON_CPU]):
        parser.error(f"argument --kernels: {others[0]!r} is measured on a GPU alone, with --device cuda")
    return until_stopped(lambda: run_on_gpu(args, given) if on_gpu else _run(args, given))


def _run(args: argparse.Namespace, given: list[str]) -> int:
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        kernels = cpu_kernels.load(args.level)
    except NoKernels as error:
        print(error, file=sys.stderr)
        return 1
    threads = torch.get_num_threads()
    try:
        measured = [_measure(number, kernels, args) for number in args.threads]
    finally:
        torch.set_num_threads(threads)
    result = KernelResult(
        level=kernels.level,
        date=date,
        command=["python", "-m", "benchmarks.kernels", *recorded(given)],
        settings={name: value for name, value in vars(args).items() if name != "output"},
        machine=machine,
        limits=[limits for limits, _ in measured],
        runs=[run for _, runs in measured for run in runs],
    )
    publish(result, args.output)
    return 0


def _measure(threads: int, kernels: Kernels, args: argparse.Namespace) -> tuple[Limits, list[KernelRun]]:
    """What so many threads can, and all runs with them."""
    torch.set_num_threads(threads)
    single = SingleKernels(kernels, threads)
    memory = args.memory_mb * 1_000_000
    bench = Bench(single, _shape(args), measure_limits(single, args.seconds, memory), args.seconds, memory)
    with torch.inference_mode(), _Progress(threads) as progress:
        return bench.limits, [progress.seen(run) for run in _runs(bench, args)]


class _Progress:
    """A line that says what was measured last. It is drawn then, and only then."""

    def __init__(self, threads: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Progress(
            *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task(f"threads: {threads}", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def seen(self, run: KernelRun) -> KernelRun:
        """The same run."""
        title = f"threads: {run.threads}, {run.number_format} {run.family}: {run.kernel} n={run.rows}"
        self._bar.update(self._task, description=title, refresh=True)
        return run


def _runs(bench: Bench, args: argparse.Namespace) -> Iterator[KernelRun]:
    dtypes = [name for name in args.dtype if name in DTYPES]
    if "products" in args.kernels:
        yield from product_runs(bench, args.dtype, args.rows)
    if "attention" in args.kernels:
        yield from attention_runs(bench, dtypes, args.decode_rows, args.contexts, args.prompts)
    if "rows" in args.kernels:
        yield from row_runs(bench, dtypes, args.rows)


def _shape(args: argparse.Namespace) -> ModelShape:
    return ModelShape(args.hidden, args.intermediate, args.heads, args.kv_heads, args.head_dim, args.vocab)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.kernels", "Each of the kernels by itself, beside torch.")
    add = parser.add_argument
    add("--device", default="cpu", help="cpu, or cuda:N for the kernels in Triton")
    add("--layers", type=positive, metavar="N", help="of the model, for a whole step on a GPU; default: as below")
    for name, size in _BUILT_IN.items():
        what = f"of the model; default: that of the built-in one, {size}, and on a GPU of Llama-3.1-8B"
        add(f"--{name.replace('_', '-')}", type=positive, metavar="N", help=what)
    levels = ("auto", *(level.name for level in LEVELS))
    add("--level", choices=levels, default="auto", help="the instructions that our kernels use on a CPU")
    formats = f"of {', '.join(FORMATS)}; default: all, on a GPU bfloat16"
    add("--dtype", type=_some_of(FORMATS), metavar="D,D", help=formats)
    families = f"of {', '.join(_FAMILIES_ON_CPU)}, on a GPU of {', '.join(FAMILIES)}; default: all"
    add("--kernels", type=_some_of(list(FAMILIES)), metavar="K,K", help=families)
    cores = len(os.sched_getaffinity(0))
    add("--threads", type=counts, default=sorted({1, cores}), metavar="N,N", help="one after the other, on a CPU")
    add("--rows", type=counts, metavar="N,N", help="of products and rows; default: 1,8,32,128, on a GPU also 256")
    add("--decode-rows", type=counts, default=[1, 8, 32], metavar="N,N", help="of attention, on a CPU")
    add("--contexts", type=counts, metavar="N,N", help="of rows that decode; on a GPU the last one counts, 1024")
    add("--prompts", type=counts, metavar="N,N", help="lengths of prompts; on a GPU the last one counts, 8192")
    add("--seconds", type=float, default=0.3, metavar="S", help="that a kernel is run for, again and again")
    add(
        "--memory-mb",
        type=positive,
        default=128,
        metavar="N",
        help="weights are spread over, on a CPU; far more than caches hold",
    )
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


def _some_of(names: Sequence[str] | dict[str, int]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        parts = text.split(",")
        if unknown := [part for part in parts if part not in names]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(names)}")
        return parts

    return some


if __name__ == "__main__":
    sys.exit(main())
