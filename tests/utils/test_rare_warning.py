from __future__ import annotations

import logging

import pytest

from vfastml.utils.rare_warning import RareWarning


@pytest.mark.rule("S10")
def test_what_others_send_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    rare = RareWarning(logging.getLogger("rare"), lambda: now[0])
    for number in range(1000):
        rare.warn("odd frame %d", number)
    assert caplog.messages == ["odd frame 0"]
    now[0] += 11
    rare.warn("odd frame %d", 7)
    rare.warn("odd frame %d", 8)
    assert caplog.messages[1:] == ["odd frame 7 (and 999 times more since the last such line)"]
