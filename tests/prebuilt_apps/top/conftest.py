from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.prebuilt_apps.scripted_server import running
from tests.prebuilt_apps.top.recorded_service import RecordedService


@pytest.fixture
def service() -> Iterator[RecordedService]:
    """A busy one."""
    with running(RecordedService()) as service:
        yield service
