"""`python -m tests.soak --minutes 20`: exit status 1 if anything did not stay flat, or a request ended wrongly."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from pathlib import Path

from tests.e2e.service import running
from tests.soak.run import Soak, SoakReport, soak_service
from tests.tiny_models import save_tiny_models


def main() -> int:
    """The exit status."""
    options = _parser().parse_args()
    os.environ.setdefault("VFASTML_MEASURE_LIMITS", "never")
    with tempfile.TemporaryDirectory() as folder, running(_service(Path(folder))) as service:
        print(f"seed {options.seed}", flush=True)
        soak = Soak(service, clients=options.clients, pause_s=options.pause, seed=options.seed, show=_show)
        report = soak.run(60 * options.minutes)
    _print(report)
    for violation in report.violations():
        print(violation, file=sys.stderr)
    return 1 if report.violations() else 0


def _service(folder: Path):
    return soak_service(save_tiny_models(folder / "models")["llama"], folder)


def _show(line: str) -> None:
    print(line, flush=True)


def _print(report: SoakReport) -> None:
    print(f"\n{report.requests} requests: " + ", ".join(f"{n} {what}" for what, n in report.outcomes.most_common()))
    print(f"{'':14}{'RSS, MiB':>18}{'MiB / 1,000':>14}{'descriptors':>14}{'threads':>12}")
    for process in report.processes:
        before, after = process.before, process.after
        rss = f"{before.rss_mib:.1f} -> {after.rss_mib:.1f}"
        descriptors = f"{before.descriptors} -> {after.descriptors}"
        threads = f"{before.threads} -> {after.threads}"
        print(f"{process.name:14}{rss:>18}{process.slope_mib:>14.3f}{descriptors:>14}{threads:>12}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=20.0, help="in all; a fifth of it is warm-up (default: 20)")
    add("--clients", type=int, default=16, help="that ask at the same time (default: 16)")
    add("--pause", type=float, default=0.0, metavar="SECONDS", help="of a client between two requests, on average")
    add("--seed", type=int, default=secrets.randbits(32), help="of all that is chosen at random")
    return parser


if __name__ == "__main__":
    sys.exit(main())
