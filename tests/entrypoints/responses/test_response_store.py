"""What is kept, and what has to go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.response_store import ResponseStore, StoredResponse

ANN, BOB = Tenant("ann", b"ann"), Tenant("bob", b"bob")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stored(name: str, num_bytes: int = 10) -> StoredResponse:
    return StoredResponse(name, b"x" * num_bytes, (), b"", in_background=False)


def kept(store: ResponseStore, owner: Tenant | None, names: str) -> str:
    return "".join(name for name in names if store.get(owner, name) is not None)


@pytest.mark.rule("S11")
def test_owners_do_not_see_each_other() -> None:
    store = ResponseStore()
    store.put(ANN, stored("a"))
    store.put(None, stored("b"))
    assert (kept(store, ANN, "ab"), kept(store, BOB, "ab"), kept(store, None, "ab")) == ("a", "", "b")
    assert not store.remove(BOB, "a")
    assert store.remove(ANN, "a")
    assert not store.remove(ANN, "a")
    assert kept(store, ANN, "a") == ""


def test_as_many_as_may_be() -> None:
    store = ResponseStore(max_responses=3)
    for name in "abc":
        store.put(ANN, stored(name))
    store.get(ANN, "a")
    store.put(ANN, stored("d"))
    assert kept(store, ANN, "abcd") == "acd"


def test_as_much_as_may_be() -> None:
    store = ResponseStore(max_bytes=30)
    for name in "abc":
        store.put(ANN, stored(name))
    store.put(ANN, stored("d", 20))
    assert kept(store, ANN, "abcd") == "cd"
    store.put(ANN, stored("e", 31))
    assert kept(store, ANN, "abcde") == "cd"
    store.remove(ANN, "d")
    store.put(ANN, stored("f", 20))
    assert kept(store, ANN, "cf") == "cf"


def test_all_that_a_response_holds_on_to_counts() -> None:
    log = EventLog()
    log.add([{"type": "response.created"}])
    response = replace(stored("a"), context=(b"12", b"345"), output=b"6789", log=log)
    assert response.num_bytes() == 10 + 2 + 3 + 4 + log.num_bytes
    assert log.num_bytes > 0


def test_who_has_the_most_makes_room() -> None:
    store = ResponseStore(max_responses=4)
    store.put(BOB, stored("x", 1000))
    for name in "abcdef":
        store.put(ANN, stored(name))
    assert (kept(store, BOB, "x"), kept(store, ANN, "abcdef")) == ("x", "def")
    store = ResponseStore(max_bytes=1000)
    store.put(BOB, stored("x", 700))
    for name in "abcdef":
        store.put(ANN, stored(name, 100))
    assert (kept(store, BOB, "x"), kept(store, ANN, "abcdef")) == ("", "abcdef")


def test_as_long_as_may_be() -> None:
    clock = Clock()
    store = ResponseStore(kept_s=10.0, clock=clock)
    store.put(ANN, stored("a"))
    store.put(ANN, stored("b"))
    clock.now = 8.0
    store.get(ANN, "a")
    clock.now = 12.0
    assert kept(store, ANN, "ab") == "a"
    clock.now = 30.0
    store.put(BOB, stored("c"))
    assert list(store._shelves) == [BOB]
