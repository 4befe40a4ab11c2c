"""The table of rules: what a run writes, and that docs/security.md names exactly the tests that are marked."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.rules import RULES
from tests.security.table import BEGIN, END, SecurityTable, empty_table, named_tests, statements

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "docs" / "security.md"
DAY, LATER = datetime.date(2026, 3, 1), datetime.date(2026, 3, 2)
HERE, THERE = "tests/security/test_table.py", "tests/test_structure.py"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(f"before\n\n{BEGIN}\n{END}\n\nafter\n")
    return path


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The tests of each rule, as pytest finds them."""
    found = tmp_path_factory.mktemp("rules") / "found"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--list-rules", str(found), "tests"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=280)
    tests: dict[str, set[str]] = {rule.name: set() for rule in RULES}
    for line in found.read_text().splitlines():
        rule, test = line.split(" ", 1)
        tests[rule].add(test)
    return tests


def row(page: Path, file: str) -> str:
    (line,) = [line for line in page.read_text().splitlines() if line.startswith(f"| `{file}`")]
    return line


def test_a_run_writes_what_it_has_shown(page: Path) -> None:
    table = SecurityTable(DAY)
    for test, outcome in (("test_a", "passed"), ("test_a", "passed"), ("test_b", "failed"), ("test_c", "skipped")):
        table.add("S4", HERE, test, outcome)
    table.add("S5", HERE, "test_a", "passed")
    table.write(page)
    text = page.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n### S1. ")
    assert text.endswith(f"{END}\n\nafter\n")
    assert f"| `{HERE}`: `test_a`, `test_b`, `test_c` | 4 | **failed**: `test_b` | 2026-03-01 |" in text
    assert f"| `{HERE}`: `test_a` | 1 | passed | 2026-03-01 |" in text
    assert named_tests(text)["S4"] == {f"{HERE}::{test}" for test in ("test_a", "test_b", "test_c")}
    assert statements(text) == empty_table()


def test_a_later_run_replaces_only_the_files_that_it_ran(page: Path) -> None:
    for day, files in ((DAY, (HERE, THERE)), (LATER, (HERE,))):
        table = SecurityTable(day)
        for file in files:
            table.add("S4", file, "test_a", "passed")
        table.write(page)
    assert row(page, HERE).endswith(" 2026-03-02 |")
    assert row(page, THERE).endswith(" 2026-03-01 |")


def test_a_file_that_is_gone_leaves_the_table(page: Path) -> None:
    gone = SecurityTable(DAY)
    gone.add("S4", "tests/test_gone.py", "test_a", "passed")
    gone.write(page)
    SecurityTable(LATER).write(page)
    assert "test_gone" not in page.read_text()


def test_a_page_without_a_table_is_an_error(page: Path) -> None:
    page.write_text("text")
    with pytest.raises(ValueError, match="no table"):
        SecurityTable(DAY).write(page)


def test_the_page_says_what_the_rules_say() -> None:
    assert statements(SECURITY.read_text()) == empty_table()


def test_every_rule_has_a_test(marked: dict[str, set[str]]) -> None:
    assert [rule for rule, tests in marked.items() if not tests] == []


def test_the_page_names_the_tests_that_there_are(marked: dict[str, set[str]]) -> None:
    """After a change of marks, `make security` writes the table anew."""
    assert named_tests(SECURITY.read_text()) == marked
