"""Collects what tests marked with `rule` have shown, and writes it into the table that `--security-table` names."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.rules import RULES
from tests.security.table import SecurityTable

TABLE = pytest.StashKey[SecurityTable]()
OUTCOME = pytest.StashKey[str]()
_NAMES = {rule.name for rule in RULES}
_WORST = ("passed", "skipped", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--security-table", type=Path, help="write which tests prove the rules into this file's table")
    parser.addoption("--list-rules", type=Path, help="write `rule file::test` of every marked test into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = SecurityTable(datetime.date.today())


def rules_of(item: pytest.Item) -> list[str]:
    """Raises UsageError for a mark that names no rule."""
    names = [str(name) for mark in item.iter_markers("rule") for name in mark.args]
    if any(mark.kwargs or not mark.args for mark in item.iter_markers("rule")) or not set(names) <= _NAMES:
        raise pytest.UsageError(f"{item.nodeid}: no such rule in {names}")
    return sorted(set(names))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = {f"{rule} {test_of(item)}" for item in items for rule in rules_of(item)}
    if (path := config.getoption("--list-rules")) is not None:
        path.write_text("\n".join(sorted(marked)))


def test_of(item: pytest.Item) -> str:
    """`file::test`, without classes and parameters."""
    return f"{item.nodeid.split('::')[0]}::{getattr(item, 'originalname', item.name)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[OUTCOME] = max(item.stash.get(OUTCOME, "passed"), report.outcome, key=_WORST.index)
    if report.when == "teardown":
        for rule in rules_of(item):
            item.config.stash[TABLE].add(rule, *test_of(item).split("::"), item.stash[OUTCOME])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (path := session.config.getoption("--security-table")) is not None:
        session.config.stash[TABLE].write(path)
