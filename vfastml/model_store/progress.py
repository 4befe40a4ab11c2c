"""How long work says where it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with a phase, such as `converting smollm2-135m-instruct`, and the done share of it, 0 to 1, or None."""


def ignore(phase: str, fraction: float | None) -> None:
    """The Progress of callers who do not want to know."""


class PhaseLines:
    """A Progress that gives each new phase to `write`, once. The bars of a terminal are drawn by those who download."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._phase = ""

    def __call__(self, phase: str, fraction: float | None = None) -> None:
        if phase != self._phase:
            self._phase = phase
            self._write(phase)
