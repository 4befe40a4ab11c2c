"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prebuilt_apps.commands import known_variables
from prebuilt_apps.variables import OTHERS
from tests.prebuilt_apps.scripted_server import ScriptedServer, scripted_server


@pytest.fixture(autouse=True)
def only_variables_that_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that say where things are kept, which may have been given for the run."""
    for name in known_variables() - OTHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Answers what a test tells it to."""
    with scripted_server() as server:
        yield server
