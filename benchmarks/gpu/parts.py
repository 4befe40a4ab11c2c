"""Parts of the benchmark: each a program with a task and a budget of time, run one after the other.

While one runs, the next is started already, and imports what it needs: on a machine with a few cores for it, that costs
nothing, and saves a third of the time in which the card would wait.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child_process import ChildProcess
from benchmarks.errors import BenchmarkError
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import NOT_HERE as NOT_HERE_STATUS
from benchmarks.gpu.records import DONE, FAILED, LATE, LEFT_OUT, NOT_HERE, STOPPED, PartOutcome
from vfastml.engine.interrupts import interrupts_held

_LEAST_S = 5.0
"""With less time left, no part is started."""
_LOOK_AGAIN_S = 0.25
_TAIL = 4000
"""Of a log, in characters."""


@dataclass(frozen=True)
class Part:
    """One program of this package."""

    name: str
    budget_s: float
    words: tuple[str, ...]
    """Its command line but for the last word, the file for measurements."""

    @property
    def file_name(self) -> str:
        """Of its files, without an ending."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)


class PartRunner:
    """Runs parts until the time is up. `outcomes` and `measurements` can be read at any moment, also after Ctrl-C."""

    def __init__(self, folder: Path, seconds: float, environment: dict[str, str], say: Callable[[str], None]) -> None:
        self.outcomes: list[PartOutcome] = []
        self.measurements: list[Measurement] = []
        self._folder = folder
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._seconds = seconds
        self._environment = environment
        self._say = say
        self._children: dict[str, ChildProcess] = {}
        """That have been started, by the part's name."""

    def run_all(self, parts: Sequence[Part]) -> int:
        """In order; 0."""
        try:
            for number, part in enumerate(parts, 1):
                self._say(f"[{self._clock()}] {number} of {len(parts)}: {part.name}")
                outcome = self._run(part, parts[number : number + 1])
                reason = f": {outcome.reason}" if outcome.reason else ""
                self._say(f"[{self._clock()}] {part.name}: {outcome.status} after {outcome.seconds:.0f} s{reason}")
        finally:
            for name in list(self._children):
                self._children.pop(name).stop()
        return 0

    def _run(self, part: Part, following: Sequence[Part]) -> PartOutcome:
        began = time.monotonic()
        outcome = PartOutcome(name=part.name, status=STOPPED, budget_s=min(part.budget_s, self._until - began))
        self.outcomes.append(outcome)
        if outcome.budget_s < min(_LEAST_S, part.budget_s):
            outcome.status, outcome.reason, outcome.budget_s = LEFT_OUT, "no time is left", part.budget_s
            return outcome
        found = MeasurementFile(self._folder / f"{part.file_name}.jsonl")
        known = len(self.measurements)
        try:
            outcome.status, outcome.reason = self._in_a_child(part, following, outcome.budget_s, found)
        except BenchmarkError as error:
            outcome.status, outcome.reason = FAILED, str(error)
        finally:
            outcome.seconds = time.monotonic() - began
            outcome.log = self._tail(part) if outcome.status in (FAILED, LATE) else ""
            self._take(found, known)
        return outcome

    def _in_a_child(
        self, part: Part, following: Sequence[Part], budget_s: float, found: MeasurementFile
    ) -> tuple[str, str]:
        """What became of it, and why."""
        until, known = time.monotonic() + budget_s, len(self.measurements)
        child = self._started(part)
        try:
            child.go()
            for each in following:
                self._started(each)
            while time.monotonic() < until:
                status = child.wait_status(_LOOK_AGAIN_S)
                self._take(found, known)
                if status is not None:
                    return _verdict(status, child.last_words())
        finally:
            child.stop()
            del self._children[part.name]
        return LATE, f"its {budget_s:.0f} s were over"

    def _started(self, part: Part) -> ChildProcess:
        if part.name not in self._children:
            words = [*part.words, str(self._folder / f"{part.file_name}.jsonl")]
            log = self._folder / f"{part.file_name}.log"
            with interrupts_held():  # between its start and its name here, nobody would stop it
                self._children[part.name] = ChildProcess(part.name, words, self._environment, log, waits=True)
        return self._children[part.name]

    def _take(self, found: MeasurementFile, known: int) -> None:
        """New measurements are shown; those of this part begin at `known`."""
        for measurement in found.read()[len(self.measurements) - known :]:
            self.measurements.append(measurement)
            self._say(f"    {measurement}")

    def _tail(self, part: Part) -> str:
        log = self._folder / f"{part.file_name}.log"
        return log.read_text(errors="replace")[-_TAIL:] if log.exists() else ""

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:3.0f}/{self._seconds:.0f} s"


def _verdict(status: int, last_words: str) -> tuple[str, str]:
    if status == 0:
        return DONE, ""
    if status == NOT_HERE_STATUS:
        return NOT_HERE, last_words
    return FAILED, f"status {status}: {last_words}"
