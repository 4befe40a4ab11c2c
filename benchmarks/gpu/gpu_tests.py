"""The tests that a GPU makes worth running, for as long as there is time."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest

from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import part_program
from benchmarks.gpu.tasks import TestsTask
from benchmarks.gpu.titles import FAILED, NOT_RUN, PASSED, SKIPPED, TESTS

_QUIETLY = ("-q", "-p", "no:cacheprovider")
_MOST_PROCESSES = 8
"""Each has a context on the card. Most of the time goes by compiling kernels, which takes a core for each."""
_MOST_NOTES = 20
_LONGEST_NOTE = 300


def measure(task: TestsTask, found: MeasurementFile) -> None:
    """Calls pytest in this process, and in some more where pytest-xdist is at hand; it ends after the tests in which
    the time was up."""
    counts = TestCounts(time.monotonic() + task.seconds)
    try:
        for arguments in task.runs:
            if not counts.is_over:
                words = [*arguments, "--continue-on-collection-errors", *_QUIETLY, *side_by_side()]
                pytest.main(words, plugins=[counts])
    finally:
        found.add(counts.measurement(task.part))


def side_by_side() -> list[str]:
    """Arguments for half as many processes as there are cores."""
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2)
    return [f"-n{processes}", "--maxschedchunk=1"] if find_spec("xdist") and processes > 1 else []


class TestCounts:
    """A plugin of pytest."""

    __test__ = False

    def __init__(self, until: float) -> None:
        self._until = until
        self._outcomes: Counter[str] = Counter()
        self._collected = 0
        self._notes: list[str] = []
        self._session: Any = None
        """What stops where its `shouldstop` says so: pytest's session, or that of pytest-xdist."""

    @property
    def is_over(self) -> bool:
        """The time is up."""
        return time.monotonic() > self._until

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """How many there are."""
        self._session = session
        self._collected += len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """The same where others run them: each of them has found all."""
        session = node.config.pluginmanager.get_plugin("dsession")
        if session is not self._session:
            self._session = session
            self._collected += len(ids)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported counts as a failure."""
        if report.failed:
            self._note(FAILED, report.nodeid, report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The outcome of a test, or of what was made for it."""
        if report.failed:
            self._note(FAILED, report.nodeid, report.longreprtext)
        elif report.skipped:
            self._outcomes[SKIPPED] += 1
        elif report.when == "call":
            self._outcomes[PASSED] += 1
        if self._session is not None and self.is_over:
            self._session.shouldstop = "the time is up"

    def measurement(self, part: str) -> Measurement:
        """So far."""
        figures = {name: float(self._outcomes[name]) for name in (PASSED, FAILED, SKIPPED)}
        figures[NOT_RUN] = max(0.0, self._collected - sum(figures.values()))
        return Measurement(part=part, workload=TESTS, figures=figures, notes=self._notes[:_MOST_NOTES])

    def _note(self, outcome: str, name: str, text: str) -> None:
        self._outcomes[outcome] += 1
        lines = [line for line in text.split("\n") if line.startswith("E ")] or text.strip().split("\n")[-1:]
        self._notes.append(f"{name}: {lines[0].removeprefix('E').strip()}"[:_LONGEST_NOTE])


if __name__ == "__main__":
    sys.exit(part_program(measure, TestsTask))
