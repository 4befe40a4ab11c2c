"""The parts of a Markdown file that tests look at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodeBlock:
    language: str
    text: str


def section(markdown: str, heading: str) -> str:
    """What stands under that heading, up to the next one of its level or above."""
    level = heading.index(" ")
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", markdown, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def table(markdown: str, first_column: str) -> list[Row]:
    """The cells of the only table whose first column has that name, without its head."""
    head = rf"^\| {re.escape(first_column)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
    (found,) = re.findall(head, markdown, re.MULTILINE)
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in found.splitlines()]


def code_blocks(markdown: str) -> list[CodeBlock]:
    return [CodeBlock(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)]


def code_spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
