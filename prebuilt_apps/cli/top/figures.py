"""Numbers as people read them at a glance: short, and a dash where there is none."""

from __future__ import annotations

NONE = "-"


def number(value: float | None) -> str:
    """Three digits or so, and no zeros behind whole ones: 0.04, 7, 4.2, 412, 1.3k, 2.5M."""
    if value is None:
        return NONE
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.7 is 1.0k: what would round to four digits is of the next unit.
        if value >= factor * 0.9995:
            return f"{value / factor:.1f}{unit}"
    if value >= 9.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """A latency: 4.2 ms, 120 ms, 1.25 s, 130 s."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value * 1e3:.1f} ms" if 0 < value < 0.00995 else f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s" if value < 99.995 else f"{value:.0f} s"


def duration(value: float | None) -> str:
    """A long time, in its two largest units: 0.3s, 12s, 3m05s, 2h07m, 4d03h."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value:.1f}s"
    whole = int(value)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{part_unit}"
    return f"{whole}s"


def share(value: float | None) -> str:
    """A percentage."""
    return NONE if value is None else f"{value:.0%}"


def bar(value: float | None, width: int, *, ascii_only: bool = False) -> str:
    """A share as a bar, and in figures beside it: no colour is needed to read it."""
    if value is None:
        return NONE
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    # What is not empty shows.
    cells = min(width, max(round(value * width), 1 if value > 0 else 0))
    return f"{full * cells}{empty * (width - cells)} {share(value):>4}"
