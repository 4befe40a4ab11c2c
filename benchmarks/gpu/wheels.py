"""Which packages a plain machine with torch and transformers lacks: `python -m benchmarks.gpu.wheels`.

Imports nothing but the standard library and `packaging`, because it runs where the others are missing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[2]
PLAIN = ("torch", "triton", "transformers", "accelerate", "numpy", "rich", "matplotlib", "pytest")
"""What such a machine has, with all that these need."""
_NOT_THROUGH = ("huggingface-hub", "typer")
"""It has these too, but what they need changes from one of their versions to the next: that is carried."""
NEEDED = ("matplotlib", "packaging", "pytest")
"""By the benchmark, beside what the product needs."""
_FOR_TESTS = ("openai", "pytest-asyncio", "pytest-timeout")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 if `--missing` has found something."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.wheels", description=__doc__)
    parser.add_argument("--missing", action="store_true", help="what this environment lacks; default: what to carry")
    if not parser.parse_args(arguments).missing:
        print("\n".join(to_carry()))
        return 0
    lacking = missing()
    print("\n".join(lacking))
    return 1 if lacking else 0


def to_carry() -> list[str]:
    """`name==version` of all that the product needs here and a plain machine lacks, as this environment has it."""
    plain = closure([*PLAIN, "hf-xet"], stop_at=_NOT_THROUGH) - {"typing-extensions"}
    carried = closure([*pinned(), *_FOR_TESTS]) - plain
    return [f"{name}=={_version(name)}" for name in sorted(carried)]


def missing() -> list[str]:
    """Packages that are needed, and not in this environment."""
    pins = pinned()
    needed = {*pins, *NEEDED, *_FOR_TESTS} - {"triton"}
    return [f"{name}=={pins[name]}" if name in pins else name for name in sorted(needed) if _version(name) is None]


def pinned() -> dict[str, str]:
    """Versions by name, of requirements.txt and, for the tests, of requirements-dev.txt."""
    product = _pins("requirements.txt")
    of_tests = {name: version for name, version in _pins("requirements-dev.txt").items() if name in _FOR_TESTS}
    return product | of_tests


def closure(names: Iterable[str], stop_at: Sequence[str] = ()) -> set[str]:
    """With all that they need in turn, extras aside, as far as this environment has them; not with what those in
    `stop_at` need."""
    found: set[str] = set()
    waiting = [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [] if name in stop_at else _needs(name)
    return found


def canonical(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(file: str) -> dict[str, str]:
    lines = (_ROOT / file).read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    return {canonical(each.name): next(iter(each.specifier)).version for each in here}


def _needs(name: str) -> list[str]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    needed = [Requirement(line) for line in lines]
    return [canonical(each.name) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
