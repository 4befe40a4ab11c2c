"""A short soak; VFASTML_SOAK_MINUTES makes it a long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.service import running
from tests.faults.table import FaultTable
from tests.soak.run import Soak, soak_service

MINUTES = float(os.environ.get("VFASTML_SOAK_MINUTES", "1.5"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60 * MINUTES + 240)]


def test_soak(tiny_models: dict[str, Path], tmp_path: Path, faults: FaultTable) -> None:
    with running(soak_service(tiny_models["llama"], tmp_path)) as service:
        report = Soak(service, clients=16, pause_s=0.0, seed=18, show=print).run(60 * MINUTES)
    slopes = ", ".join(f"{process.name} {process.slope_mib:+.2f} MiB" for process in report.processes)
    outcomes = ", ".join(f"{count} {what}" for what, count in report.outcomes.most_common())
    faults.shows("F18", f"{report.requests} requests in {MINUTES:g} min ({outcomes}); for 1,000: {slopes}")
    assert report.violations() == []
