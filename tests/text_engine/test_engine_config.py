"""Sizes of memory as people write them."""

from __future__ import annotations

import pytest

from vfastml.text_engine.engine_config import parse_gpu_memory, parse_memory


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", 0.5),
        (".25", 0.25),
        (" 0.9 ", 0.9),
        ("1", 1.0),
        ("1.0", 1.0),
        ("10GiB", 10 << 30),
        ("1.5 GB", 1_500_000_000),
        ("2", 2),
        ("17179869184", 1 << 34),
    ],
)
def test_share_of_a_gpu_or_bytes(text: str, expected: float) -> None:
    assert parse_gpu_memory(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0.0", "-0.5", "50%", "half", "nan", "1e9", "0,5", ".", "1.5", "1B"])
def test_no_share_and_no_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"a share of the GPU, such as 0\.5, or an amount of memory, such as 10GiB"):
        parse_gpu_memory(text)
