from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vfastml.utils.garbage import settle_garbage_collection


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Knot:
    def __init__(self) -> None:
        self.own = self


def test_what_is_there_is_put_aside_and_what_comes_later_is_collected() -> None:
    kept = Knot()
    settle_garbage_collection()
    assert gc.get_freeze_count() > 0
    assert not any(each is kept for each in gc.get_objects())
    Knot()
    assert gc.collect() > 0


def test_young_objects_are_looked_at_less_often() -> None:
    gc.set_threshold(700, 11, 12)
    settle_garbage_collection()
    young, *older = gc.get_threshold()
    assert young > 700
    assert older == [11, 12]
