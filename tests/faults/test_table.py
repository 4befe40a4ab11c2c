"""The table itself: what a run writes, and what it leaves alone."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tests.faults.table import BEGIN, END, FAULTS, FaultTable

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
DAY = datetime.date(2026, 3, 1)
LATER = datetime.date(2026, 3, 2)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A document with a table that nobody has filled in."""
    path = tmp_path / "page.md"
    path.write_text(f"before\n\n{BEGIN}\n{END}\n\nafter\n")
    return path


def row(page: Path, number: str) -> list[str]:
    """The last two cells of that row."""
    (line,) = [line for line in page.read_text().splitlines() if line.startswith(f"| {number} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][3:]


def test_what_was_not_run_says_so(page: Path) -> None:
    FaultTable(DAY).write(page)
    text = page.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n| # |")
    assert text.endswith(f"{END}\n\nafter\n")
    assert all(row(page, fault.number) == ["not run", ""] for fault in FAULTS)


def test_a_later_run_replaces_only_its_own_rows(page: Path) -> None:
    for day, measured in ((DAY, {"F1": "0.3 s", "F12": "510 ms"}), (LATER, {"F12": "520 ms"})):
        table = FaultTable(day)
        for number, words in measured.items():
            table.shows(number, words)
        table.end_test(passed=True)
        table.write(page)
    assert (row(page, "F1"), row(page, "F12")) == (["0.3 s", "2026-03-01"], ["520 ms", "2026-03-02"])
    assert row(page, "F2") == ["not run", ""]


def test_several_results_of_one_row_stand_together(page: Path) -> None:
    table = FaultTable(DAY)
    for words in ("killed: 0.3 s", "frozen | woken: 0.9 s"):
        table.shows("F1", words)
        table.end_test(passed=True)
    table.write(page)
    assert row(page, "F1") == ["killed: 0.3 s; frozen / woken: 0.9 s", "2026-03-01"]


def test_a_row_whose_test_failed_shows_no_figure(page: Path) -> None:
    table = FaultTable(DAY)
    for passed in (True, False, True):
        table.shows("F1", "0.3 s")
        table.end_test(passed)
    table.write(page)
    assert row(page, "F1") == ["failed", "2026-03-01"]


def test_an_unknown_number_is_an_error(page: Path) -> None:
    with pytest.raises(KeyError):
        FaultTable(DAY).shows("F99", "nothing")


def test_a_page_without_a_table_is_left_alone(page: Path) -> None:
    page.write_text("no table")
    with pytest.raises(ValueError, match="no table"):
        FaultTable(DAY).write(page)
    assert page.read_text() == "no table"


def test_the_page_has_the_rows_of_this_file(tmp_path: Path) -> None:
    copy = tmp_path / "operations.md"
    copy.write_text(OPERATIONS.read_text())
    FaultTable(DAY).write(copy)
    assert copy.read_text() == OPERATIONS.read_text()
