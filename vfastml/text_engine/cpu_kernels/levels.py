"""What this processor can do, as one of three levels that the kernels are compiled for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Level:
    """Instructions that a build uses, by their names in /proc/cpuinfo and by the compiler's flags."""

    name: str
    needs: frozenset[str]
    flags: tuple[str, ...]


def _level(name: str, **flags: str) -> Level:
    return Level(name, frozenset(flags), tuple(flags.values()))


_AVX2 = {"avx2": "-mavx2", "fma": "-mfma"}
_AVX512 = {
    **_AVX2,
    "avx512f": "-mavx512f",
    "avx512bw": "-mavx512bw",
    "avx512vl": "-mavx512vl",
    "avx512dq": "-mavx512dq",
}
LEVELS = (
    _level("avx512bf16", **_AVX512, avx512_vnni="-mavx512vnni", avx512_bf16="-mavx512bf16"),
    _level("avx512", **_AVX512),
    _level("avx2", **_AVX2),
)
"""Best first."""


def level_named(name: str) -> Level:
    """Raises ValueError, which lists the names, for one that is none."""
    for level in LEVELS:
        if level.name == name:
            return level
    raise ValueError(f"{name!r} is no level of instructions: use {', '.join(level.name for level in LEVELS)}")


def fitting_levels() -> list[Level]:
    """Those that this processor has, best first; none where it has not even AVX2, or is no x86."""
    features = cpu_features()
    return [level for level in LEVELS if level.needs <= features]


def cpu_features() -> frozenset[str]:
    """The names that Linux gives them; empty on other systems."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(flags.partition(":")[2].split())
