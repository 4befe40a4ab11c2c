"""pyproject.toml says which versions are accepted, requirements*.txt which of them are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vfastml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT_ON_THE_SPOT = {"flash-attn"}
"""Compiled against each user's torch, and so without a pin."""


def pins(name: str) -> dict[str, str]:
    """The one exact version of each package in that file."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    exact: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        [specifier] = requirement.specifier
        assert specifier.operator == "==", requirement
        assert requirement.name not in exact
        exact[canonicalize_name(requirement.name)] = specifier.version
    return exact


def ranges(*lists: list[str]) -> dict[str, Requirement]:
    """The packages of these lists of requirements, without references to the project's own extras."""
    requirements = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(one.name): one for one in requirements if one.name != PROJECT["name"]}


EXTRAS = PROJECT["optional-dependencies"]
PRODUCT = ranges(PROJECT["dependencies"], *(EXTRAS[name] for name in EXTRAS if name != "dev"))


@pytest.mark.rule("S13")
def test_what_is_pinned_is_what_is_declared() -> None:
    assert set(pins("requirements.txt")) == set(PRODUCT) - BUILT_ON_THE_SPOT
    assert set(pins("requirements-dev.txt")) == set(ranges(EXTRAS["dev"]))


@pytest.mark.rule("S13")
def test_every_pin_lies_in_its_range() -> None:
    accepted = PRODUCT | ranges(EXTRAS["dev"])
    for name, version in (pins("requirements.txt") | pins("requirements-dev.txt")).items():
        assert version in accepted[name].specifier, (name, version, str(accepted[name]))


def test_a_range_of_the_product_has_both_ends() -> None:
    for requirement in PRODUCT.values():
        assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}, requirement


def test_pins_and_ranges_hold_on_the_same_platforms() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for pin in map(Requirement, filter(lambda line: line and not line.startswith("#"), lines)):
        assert str(pin.marker) == str(PRODUCT[canonicalize_name(pin.name)].marker), pin


@pytest.mark.parametrize("name", ["requirements-clients.txt", "requirements-lm-eval.txt"])
def test_other_environments_agree_with_the_product(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    [constraints] = [line.removeprefix("-c ") for line in lines if line.startswith("-c ")]
    for requirement in (Requirement(line) for line in lines if not line.startswith("-c ")):
        shared = pins(constraints).get(canonicalize_name(requirement.name))
        assert [specifier.operator for specifier in requirement.specifier] == ([] if shared else ["=="]), requirement


@pytest.mark.rule("S13")
def test_every_dependency_is_explained() -> None:
    explained = (ROOT / "docs" / "dependencies.md").read_text().lower().replace("-", "_")
    for name in PRODUCT | ranges(EXTRAS["dev"]):
        assert name.replace("-", "_") in explained, name


def test_the_version_is_written_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", vfastml.__version__)
