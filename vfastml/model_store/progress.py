"""How long work says where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with a phase, such as `converting smollm2-135m-instruct`, and the done share of it, 0 to 1, or None."""


def ignore(phase: str, fraction: float | None) -> None:
    """The Progress of callers who do not want to know."""
