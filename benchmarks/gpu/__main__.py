"""`python -m benchmarks.gpu`, as benchmarks/gpu.sh runs it: all parts, then a JSON file, a document and a picture."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.flags import new_parser, new_seed, recorded
from benchmarks.gpu import environment
from benchmarks.gpu.markdown import markdown
from benchmarks.gpu.parts import Part, PartRunner
from benchmarks.gpu.picture import draw
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.records import DONE, LATE, LEFT_OUT, NOT_HERE, GpuResult
from benchmarks.gpu.result_tables import outcome_table, target_table
from benchmarks.gpu.scale import DRY, FULL, Scale
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER
from benchmarks.stopping import until_stopped

_MINUTES, _DRY_MINUTES = 7.5, 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all parts that could run did, 1 one failed or nothing could be measured, 2 no such parts, 130
    Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    scale = DRY if args.dry else FULL
    has_gpu = not args.list and not args.dry and environment.torch_sees_a_gpu()
    missing = [] if args.list else environment.missing(dry=args.dry, has_gpu=has_gpu)
    for line in missing:
        _say(f"missing: {line}")
    if not (args.dry or args.list or has_gpu):
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        return _run(args, given, scale, missing, Path(scratch))


def _run(args: argparse.Namespace, given: list[str], scale: Scale, missing: list[str], scratch: Path) -> int:
    parts = _chosen(Plan(scale, scratch / "models", args.seed).parts(), args.parts)
    if not parts:
        _say(f"no part's name contains any of {args.parts}: --list shows the names")
        return 2
    if args.list:
        print("\n".join(f"{part.budget_s:4.0f} s  {part.name}" for part in parts))
        return 0
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **scale.environment}
    seconds = 60 * (args.minutes or (_DRY_MINUTES if args.dry else _MINUTES))
    runner = PartRunner(scratch, seconds, variables, _say)
    for name, value in environment.report().items():
        _say(f"{name}: {value}")
    status = _run_all(runner, parts)
    settings = {"large": scale.large.name, "levels": list(scale.levels), "dtype": scale.dtype, "seed": args.seed}
    result = GpuResult(
        date=date,
        command=["benchmarks/gpu.sh", *recorded(given)],
        machine=machine,
        dry=args.dry,
        settings=settings | {"device": scale.device, "minutes": seconds / 60},
        environment=environment.report(),
        missing=missing,
        outcomes=runner.outcomes,
        measurements=runner.measurements,
    )
    _publish(result, args.output)
    fine = {DONE, NOT_HERE, LEFT_OUT} | ({LATE} if args.dry else set())
    return status or int(any(outcome.status not in fine for outcome in result.outcomes))


def _run_all(runner: PartRunner, parts: list[Part]) -> int:
    """The status. Nothing that goes wrong here is worth what was measured before it."""
    try:
        return until_stopped(lambda: runner.run_all(parts))
    except Exception:
        traceback.print_exc()
        return 1


def _chosen(parts: list[Part], names: str | None) -> list[Part]:
    """Those whose names contain one of the words."""
    words = names.split(",") if names else [""]
    return [part for part in parts if any(word in part.name for word in words)]


def _publish(result: GpuResult, folder: Path) -> None:
    stem = folder / f"gpu-{'dry-' if result.dry else ''}{result.date}"
    result.save(stem.with_suffix(".json"))
    stem.with_suffix(".md").write_text(markdown(result, f"{stem.name}.png"))
    draw(result, stem.with_suffix(".png"))
    for table in (outcome_table(result), target_table(result)):
        print(table.markdown(), end="\n\n")
    print(f"written: {stem}.json, .md and .png")


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks/gpu.sh", "The product on one GPU, in minutes and without a network.")
    add = parser.add_argument
    add("--dry", action="store_true", help="tiny shapes on a CPU, in Triton's interpreter: does everything run?")
    add("--minutes", type=float, metavar="N", help=f"for all parts; default: {_MINUTES:g}, dry {_DRY_MINUTES:g}")
    add("--parts", metavar="WORD,WORD", help="only parts whose names contain one of these; --list shows the names")
    add("--list", action="store_true", help="the parts, in order, and the most time each may take")
    add("--seed", type=int, metavar="N", help="of prompts and weights; default: a new one, which is stored")
    folder = Path(os.environ.get("OUT") or DEFAULT_FOLDER)
    add("--output", type=Path, default=folder, metavar="FOLDER", help="for the JSON, the document and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
