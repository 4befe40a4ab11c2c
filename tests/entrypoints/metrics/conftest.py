from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.entrypoints.metrics.observed_service import ObservedService, observed_service, play


@pytest.fixture(scope="session")
def played() -> Iterator[ObservedService]:
    """A service that has answered a little of everything."""
    with observed_service() as service:
        play(service)
        yield service
