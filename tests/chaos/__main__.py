"""`python -m tests.chaos --seconds 60 --seed 1`: chaos for a while, a table, and status 1 if anything went wrong."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from benchmarks.stopping import until_stopped
from tests.chaos.chaos_run import ChaosRun, Outcome
from tests.chaos.ledger import Ledger
from tests.tiny_models import save_tiny_models


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of chaos, after the start (default: 60)")
    parser.add_argument("--seed", type=int, action="append", help="repeatable, for one run each (default: drawn)")
    parser.add_argument("--logs", type=Path, help="folder for the logs of all processes (default: thrown away)")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VFASTML_MEASURE_LIMITS", "never")
    disable_progress_bar()
    outcomes = [_run(seed, options.seconds, options.logs) for seed in options.seed or [secrets.randbelow(10_000)]]
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _run(seed: int, seconds: float, logs: Path | None) -> Outcome:
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=seconds, unit="s", bar_format=_BAR) as bar:
        folder = Path(scratch) if logs is None else logs / str(seed)
        folder.mkdir(parents=True, exist_ok=True)

        def show(passed: float, ledger: Ledger) -> None:
            bar.set_postfix_str(f"{ledger.asked} asked, {ledger.num_violations} wrong, {ledger.recent[-1:]}", False)
            bar.update(passed - bar.n)

        bar.set_description_str(f"seed {seed}")
        model = save_tiny_models(Path(scratch) / "models")["llama"]
        outcome = asyncio.run(ChaosRun(model, folder, seconds=seconds, seed=seed, progress=show).run())
    _show(outcome)
    return outcome


_BAR = "{desc} {percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s {postfix}"


def _show(outcome: Outcome) -> None:
    console = Console(width=140)
    ledger = outcome.ledger
    table = Table("", "", title=f"chaos, seed {outcome.seed}", show_header=False, title_justify="left")
    for end, count in ledger.ends.most_common():
        excused = f" ({ledger.excused[end]} of them while the way was down)" if ledger.excused[end] else ""
        table.add_row(f"requests {end}", f"{count}{excused}")
    table.add_section()
    table.add_row("done to it", ", ".join(f"{count} {name}" for name, count in ledger.disturbances.most_common()))
    table.add_section()
    for line in outcome.lines:
        table.add_row(line.what, line.found, style=None if line.is_good else "bold red")
    console.print(table)
    for violation in ledger.violations:
        console.print(violation, style="red", markup=False)
    verdict = "good" if outcome.is_good else "NOT GOOD"
    console.print(f"{verdict}: repeat with --seed {outcome.seed} --seconds {outcome.seconds:g}")


if __name__ == "__main__":
    sys.exit(until_stopped(main))
