"""How many files this process may have open."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator

import pytest

from vfastml.entrypoints.descriptors import connections_that_fit, raise_descriptor_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_goes(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(500, limits[1]), limits[1]))
    assert connections_that_fit() == int(min(500, limits[1]) * 0.9)
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


def test_no_limit_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connections_that_fit() == math.inf


def test_a_limit_that_is_not_granted_stays(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptor_limit()
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
