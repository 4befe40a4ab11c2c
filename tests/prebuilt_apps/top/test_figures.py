"""Numbers as text."""

from __future__ import annotations

import pytest

from prebuilt_apps.cli.top import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.043, "0.04"),
        (0.998, "1.0"),
        (7.0, "7"),
        (4.25, "4.2"),
        (9.96, "10"),
        (412.4, "412"),
        (999.6, "1.0k"),
        (12_345, "12.3k"),
        (2.5e6, "2.5M"),
        (7e9, "7.0G"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0042, "4.2 ms"),
        (0.00999, "10 ms"),
        (0.12, "120 ms"),
        (0.9996, "1.00 s"),
        (1.254, "1.25 s"),
        (99.999, "100 s"),
        (130.2, "130 s"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.34, "0.3s"), (59, "59s"), (185, "3m05s"), (7620, "2h07m"), (4 * 86400 + 3 * 3600, "4d03h")],
)
def test_duration(value: float | None, text: str) -> None:
    assert figures.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "░░░░   0%"),
        (0.001, "█░░░   0%"),
        (0.5, "██░░  50%"),
        (1.0, "████ 100%"),
        (1.5, "████ 150%"),
    ],
)
def test_bar(value: float | None, text: str) -> None:
    assert figures.bar(value, 4) == text


def test_bar_of_plain_characters() -> None:
    assert figures.bar(0.5, 4, ascii_only=True) == "##..  50%"
