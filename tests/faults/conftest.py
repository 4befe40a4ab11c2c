"""The table that the tests of faults fill in."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.table import FaultTable

TABLE = pytest.StashKey[FaultTable]()
PASSED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", type=Path, help="write what was measured into this file's table of faults")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = FaultTable(datetime.date.today())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[PASSED] = item.stash.get(PASSED, True) and report.passed
    return report


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[FaultTable]:
    """`faults.shows("F3", "2.3 s until it was ended")` takes down what a test has measured."""
    table = request.config.stash[TABLE]
    yield table
    table.end_test(passed=request.node.stash.get(PASSED, False))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-table", default=None)
    if path is not None:
        session.config.stash[TABLE].write(path)
