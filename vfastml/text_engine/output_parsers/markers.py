"""Markers in a growing text: where one begins, and what may still become one."""

from __future__ import annotations

from collections.abc import Sequence

MAX_SPACE = 64
"""White space beside a marker that belongs to it, in characters. More of it is text: who asks for blank lines gets them
as they come."""


def first_marker(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Place and text of the marker that comes first; of two at one place, the longer."""
    found = [(place, marker) for marker in markers if (place := text.find(marker)) >= 0]
    return min(found, key=lambda one: (one[0], -len(one[1])), default=None)


def may_become(text: str, markers: Sequence[str]) -> bool:
    """Whether the text, which may be empty, is the beginning of a marker and not a whole one."""
    return any(marker.startswith(text) and marker != text for marker in markers)


def without_end_space(text: str) -> str:
    """The text before a marker."""
    start = max(0, len(text) - MAX_SPACE)
    return text[:start] + text[start:].rstrip()


def split_at_hold(text: str, markers: Sequence[str]) -> tuple[str, str]:
    """What can be given out, and what has to wait: an end that may become a marker, with the white space before it."""
    longest = min(len(text), max((len(marker) for marker in markers), default=1) - 1)
    held = next((size for size in range(longest, 0, -1) if may_become(text[-size:], markers)), 0)
    certain = without_end_space(text[: len(text) - held])
    return certain, text[len(certain) :]
