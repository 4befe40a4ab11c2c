"""The rules in docs/security.md: each with the tests that prove it and how they ended when they were run last."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.security.rules import RULES

BEGIN, END = "<!-- rules -->", "<!-- /rules -->"
_ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"### (S\d+)\. ")
_HEADER = ["| tests | cases | result | on |", "|---|---|---|---|"]


@dataclass
class Proofs:
    """The tests of one file that prove one rule, and how their cases ended."""

    tests: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def add(self, test: str, outcome: str) -> None:
        if test not in self.tests:
            self.tests.append(test)
        self.outcomes[outcome] += 1
        if outcome == "failed" and test not in self.failed:
            self.failed.append(test)

    def result(self) -> str:
        if self.failed:
            return f"**failed**: {', '.join(f'`{test}`' for test in self.failed)}"
        return ", ".join(f"{count} {outcome}" if outcome != "passed" else outcome for outcome, count in self._sorted())

    def _sorted(self) -> list[tuple[str, int]]:
        return sorted(self.outcomes.items())


class SecurityTable:
    """What a run that began on that day has shown."""

    def __init__(self, day: datetime.date) -> None:
        self._day = day
        self._proofs: dict[tuple[str, str], Proofs] = {}

    def add(self, rule: str, file: str, test: str, outcome: str) -> None:
        """One case of a test: `outcome` is passed, failed or skipped."""
        self._proofs.setdefault((rule, file), Proofs()).add(test, outcome)

    def write(self, path: Path) -> None:
        """Replaces what is there of the files that were run, and of those that are gone. Raises ValueError where there
        is no table."""
        before, rows, after = _parts(path.read_text())
        files = {file for _, file in self._proofs}
        rows = {key: row for key, row in rows.items() if key[1] not in files and (_ROOT / key[1]).exists()}
        rows |= {key: self._row(key[1], proofs) for key, proofs in self._proofs.items()}
        path.write_text(f"{before}{BEGIN}\n{_sections(rows)}{END}{after}")

    def _row(self, file: str, proofs: Proofs) -> str:
        tests = ", ".join(f"`{test}`" for test in proofs.tests)
        cases = sum(proofs.outcomes.values())
        return f"| `{file}`: {tests} | {cases} | {proofs.result()} | {self._day.isoformat()} |"


def named_tests(text: str) -> dict[str, set[str]]:
    """`file::test` of every row, for each rule."""
    named: dict[str, set[str]] = {rule.name: set() for rule in RULES}
    for (rule, file), row in _parts(text)[1].items():
        first = row.strip("|").split("|")[0]
        named[rule] |= {f"{file}::{test}" for test in re.findall(r"`(\w+)`", first.split(":", 1)[1])}
    return named


def statements(text: str) -> str:
    """The table without its rows: what is said, and not what was shown."""
    return "\n".join(line for line in _table_of(text)[1].splitlines() if not line.startswith("| `"))


def empty_table() -> str:
    return "\n".join(_sections({}).splitlines())


def _sections(rows: dict[tuple[str, str], str]) -> str:
    lines: list[str] = []
    for rule in RULES:
        proofs = [rows[key] for key in sorted(rows) if key[0] == rule.name]
        lines += [f"### {rule.name}. {rule.title}", rule.statement, "", *_HEADER, *proofs, ""]
    return "\n".join(lines)


def _table_of(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(rf"(.*?){BEGIN}\n(.*?){END}(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no table between {BEGIN} and {END}")
    before, table, after = found.groups()
    return before, table, after


def _parts(text: str) -> tuple[str, dict[tuple[str, str], str], str]:
    """What is before the table, its rows by rule and file, and what is behind it."""
    before, table, after = _table_of(text)
    rows, rule = {}, ""
    for line in table.splitlines():
        if heading := _HEADING.match(line):
            rule = heading.group(1)
        elif line.startswith("| `"):
            rows[rule, line.split("`")[1]] = line
    return before, rows, after
