"""Sizes of memory as people write them."""

from __future__ import annotations

import pytest

from vfastml.text_engine.engine_config import parse_memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300MB", 300 * 10**6),
        ("1GiB", 1 << 30),
        ("1.5 GB", 1_500_000_000),
        ("1.1GB", 1_100_000_000),
        ("64kib", 65536),
        (" 12 ", 12),
        ("12B", 12),
        ("9007199254740993", 9007199254740993),
        ("9" * 400 + "GB", int("9" * 400) * 10**9),
    ],
)
def test_bytes(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize(
    "text", ["", "MB", "-1GB", "1e9", "1 G B", "1TB", "0", "0.1B", "0GB", "inf", "nan", "1.GB", ".5GB", "1,5GB"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"300MB|more than zero"):
        parse_memory(text)
