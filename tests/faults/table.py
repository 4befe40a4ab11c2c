"""The table of faults in docs/operations.md: what is done to a service, what it must stand, and what was measured."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
NOT_RUN, FAILED = "not run", "failed"


@dataclass(frozen=True)
class Fault:
    """One row's first columns."""

    number: str
    what: str
    target: str


FAULTS = (
    Fault("F1", "model server killed under 32 streams", "every stream has its end and `/readyz` says 503 within 1 s"),
    Fault("F2", "model server frozen (SIGSTOP), then woken", "found within 2 s; what it sends late reaches nobody"),
    Fault("F3", "a step that never ends", "ended within `--max-step` + 1 s, started again; no false alarm"),
    Fault("F4", "a long step below the limit", "20 of 20 are left alone"),
    Fault("F5", "one request of 16 breaks the step", "it alone fails; same process"),
    Fault("F6", "model server cannot start", "all ends within 2 s, non-zero, with the cause in one line"),
    Fault("F7", "gateway or supervisor killed", "no orphan after 5 s; the next start works"),
    Fault("F8", "model server breaks, then SIGTERM", "exit status is not 0"),
    Fault("F9", "200 clients go away", "the model server knows within 250 ms (p99); all free within 1 s"),
    Fault("F10", "100 requests for 8 + 8 places", "16 answers, 84 × 429 with Retry-After, p99 of a refusal < 50 ms"),
    Fault("F11", "three times the load it can carry", "≥ 90 % of the best throughput; bounded latency"),
    Fault("F12", "deadline of 500 ms, slow model", "504 after 500–750 ms; cancelled in the model server"),
    Fault("F13", "SIGTERM under load", "nothing open is lost; what is new gets 503; exit 0 in time"),
    Fault("F14", "second SIGTERM", "exit within 2 s"),
    Fault("F15", "two model servers restarted in turn under load", "no client sees an error"),
    Fault("F16", "a bad network between gateway and model server", "no crash, no mix-up; well 2 s after it heals"),
    Fault("F17", "floods on the wire's port", "bounded memory; the others' p99 < 2 ×"),
    Fault("F18", "mixed traffic; 10 % leave, 5 % are invalid", "< 1 MiB for 1,000 requests; flat descriptors, threads"),
    Fault("F19", "a third of the KV blocks that a batch needs", "the same tokens as without a shortage"),
    Fault("F20", "model server out of memory (killed)", "started again with back-off; the gateway stays"),
    Fault("F21", "MemoryError in a step", "it goes on in smaller steps; the next 100 requests are fine"),
    Fault("F22", "slow heads and bodies, 500 idle connections", "closed in time; the others' p99 within 20 %"),
    Fault("F23", "disk full, read-only cache, no folder for temporary files", "a clear line; what runs goes on"),
    Fault("F24", "dies again and again", "back-off; `/readyz` 503, `/livez` 200; after 5 in 60 s exit non-zero"),
    Fault("F25", "the clock jumps", "no deadline moves"),
)


class FaultTable:
    """What the tests of a run that began on that day have measured, and the table that it goes into."""

    def __init__(self, day: datetime.date) -> None:
        self._day = day
        self._faults = {fault.number: fault for fault in FAULTS}
        self._measured: dict[str, list[str]] = {}
        self._failed: set[str] = set()
        self._of_this_test: list[str] = []

    def shows(self, number: str, measured: str) -> None:
        """Takes down what was measured, in words and figures. Raises KeyError for an unknown number."""
        self._of_this_test.append(self._faults[number].number)
        self._measured.setdefault(number, []).append(measured.replace("|", "/").replace("\n", " "))

    def end_test(self, passed: bool) -> None:
        """A row of which a test failed says so, whatever other tests have measured for it."""
        if not passed:
            self._failed.update(self._of_this_test)
        self._of_this_test.clear()

    def write(self, path: Path) -> None:
        """Replaces the rows that this run has results for; others stay. Raises ValueError where there is no table."""
        before, rows, after = _parts(path.read_text())
        rows |= {number: f"{self._result(number)} | {self._day.isoformat()}" for number in self._measured}
        table = ["| # | fault | target | measured | on |", "|---|---|---|---|---|"]
        table += [_line(fault, rows.get(fault.number, f"{NOT_RUN} | ")) for fault in FAULTS]
        path.write_text("\n".join([f"{before}{BEGIN}", *table, f"{END}{after}"]))

    def _result(self, number: str) -> str:
        return FAILED if number in self._failed else "; ".join(self._measured[number])


def _line(fault: Fault, result: str) -> str:
    return f"| {fault.number} | {fault.what} | {fault.target} | {result} |".replace("  |", " |")


def _parts(text: str) -> tuple[str, dict[str, str], str]:
    """What is before the table, its rows' last two columns, and what is behind it."""
    found = re.fullmatch(rf"(.*?){BEGIN}\n(.*?){END}(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no table between {BEGIN} and {END}")
    before, table, after = found.groups()
    columns = [[column.strip() for column in line.strip("|").split("|")] for line in table.splitlines()]
    rows = {row[0]: " | ".join(row[3:5]) for row in columns if row[0] in {fault.number for fault in FAULTS}}
    return before, rows, after
