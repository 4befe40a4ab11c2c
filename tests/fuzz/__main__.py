"""`python -m tests.fuzz --count 200000 --seed 1`: malformed HTTP and malformed messages for a service of processes.

Exit status 1 if anything is wrong: a 5xx other than 503, a request without its end, a process that is another one or
has grown, a traceback. `--first N --count 1` with the same seed sends one case again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tests.fuzz.campaign import Campaign

_MIB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VFASTML_MEASURE_LIMITS", "never")
    numbers = range(options.first, options.first + options.count)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        tqdm(total=options.count, unit=" cases", disable=not sys.stderr.isatty()) as progress,
    ):
        folder = Path(name)
        campaign = Campaign(_tiny_model(folder / "models"), folder, lambda done: progress.update(done - progress.n))
        campaign.run(options.seed, numbers)
        progress.update(options.count - progress.n)
    _print(campaign, options, time.monotonic() - began)
    return 1 if campaign.findings.num_wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="cases to send (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same one sends the same cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case")
    return parser


def _tiny_model(folder: Path) -> Path:
    from tests.tiny_models import save_tiny_models  # torch: not for --help

    return save_tiny_models(folder)["llama"]


def _print(campaign: Campaign, options: argparse.Namespace, seconds: float) -> None:
    console = Console()
    findings = campaign.findings
    outcomes = Table("kind", "outcome", "cases", title=f"seed {options.seed}, {options.count} cases, {seconds:.0f} s")
    for (kind, outcome), count in sorted(findings.counts.items()):
        outcomes.add_row(kind, outcome, f"{count:,}")
    console.print(outcomes)
    processes = Table("process", "pid", "MiB before", "MiB after", "descriptors before", "after")
    for one in campaign.watched:
        sizes = (one.pid, one.rss_before // _MIB, one.rss // _MIB, one.descriptors_before, one.descriptors)
        processes.add_row(one.name, *map(str, sizes))
    console.print(processes)
    for sentence in findings.wrong:
        print(f"WRONG: {sentence}")
    print(f"{findings.num_wrong} things are wrong." if findings.num_wrong else "Nothing is wrong.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the service's processes end with this one
    sys.exit(main())
