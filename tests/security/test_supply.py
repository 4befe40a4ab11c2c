"""S13: nothing is older than the floors, comes from elsewhere than the one index, or is left to the day."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import zmq
from packaging.requirements import Requirement
from packaging.version import Version

from tests.package.test_requirements import EXTRAS, PRODUCT, ranges
from tests.security.sources import ROOT

FLOORS = {
    requirement.name: Version(next(iter(requirement.specifier)).version)
    for requirement in map(
        Requirement,
        (line for line in (ROOT / "security-floors.txt").read_text().splitlines() if not line.startswith("#")),
    )
}
PINNED = sorted(ROOT.glob("requirements*.txt"))
INSTALLS = [*PINNED, ROOT / "pyproject.toml", ROOT / "Makefile", *sorted(ROOT.glob("Dockerfile*"))]
ELSEWHERE = re.compile(
    r"--(extra-)?index-url|--find-links|--trusted-host|^\s*-[if] |git\+|dependency_links|@ (https?|file):"
)


def installed(name: str) -> Version | None:
    if name == "libzmq":
        return Version(zmq.zmq_version())
    try:
        return Version(version(name).partition("+")[0])
    except PackageNotFoundError:
        return None


@pytest.mark.rule("S13")
@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_lies_above_its_floor(name: str) -> None:
    found = installed(name)
    if found is None:
        pytest.skip("it is not installed")
    assert found >= FLOORS[name]


@pytest.mark.rule("S13")
def test_what_is_accepted_lies_above_its_floor() -> None:
    accepted = PRODUCT | ranges(EXTRAS["dev"])
    compared = [name for name in FLOORS if name in accepted]
    assert {"starlette", "jinja2", "transformers", "torch"} <= set(compared)
    for name in compared:
        least = next(one.version for one in accepted[name].specifier if one.operator == ">=")
        assert Version(least) >= FLOORS[name], name


@pytest.mark.rule("S13")
@pytest.mark.parametrize("path", INSTALLS, ids=lambda path: path.name)
def test_there_is_one_index(path: Path) -> None:
    found = [line for line in path.read_text().splitlines() if ELSEWHERE.search(line) and not line.startswith("#")]
    assert found == []


@pytest.mark.rule("S13")
@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_requirement_is_pinned(path: Path) -> None:
    """Or constrained by a file that pins it."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    constrained = any(line.startswith("-c ") for line in lines)
    for requirement in (Requirement(line) for line in lines if not line.startswith("-c ")):
        operators = [one.operator for one in requirement.specifier]
        assert operators == ["=="] or (constrained and not operators), requirement
