"""The table that the tests of faults fill in."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running
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


@pytest.fixture
def tiny_service(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[Service]:
    """Started anew for each test: here, a test may leave it in pieces."""
    with running(Service.of_tiny_model(tmp_path, tiny_models["llama"])) as service:
        yield service


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-table", default=None)
    if path is not None:
        session.config.stash[TABLE].write(path)
