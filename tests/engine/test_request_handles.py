"""What a request can be named by, and by whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vfastml.engine.dispatch_requests import OneShotReq, TextGenerationReq
from vfastml.engine.request_handles import REQUEST_NAME, HandleIndex, handle_of, with_handles
from vfastml.engine.tenant import TENANT, Tenant


def handle_for(tenant: bytes | None, name: str) -> str:
    before = TENANT.set(None if tenant is None else Tenant("any", tenant))
    try:
        return handle_of(name)
    finally:
        TENANT.reset(before)


@pytest.fixture
def named() -> Iterator[None]:
    before = REQUEST_NAME.set("mine")
    yield
    REQUEST_NAME.reset(before)


def test_a_handle_is_of_one_caller_and_one_name_and_tells_neither() -> None:
    handles = [handle_for(tenant, name) for tenant in (None, b"first", b"second") for name in ("a", "b", "\ud800")]
    assert len(set(handles)) == 9
    assert handle_for(b"first", "a") == handles[3]
    assert {len(handle) for handle in handles} == {32}


@pytest.mark.usefixtures("named")
def test_a_request_has_a_handle_of_each_name_once() -> None:
    request = with_handles(TextGenerationReq(request_id="r1", prompt="x", handles=["group", "mine"]))
    assert request == TextGenerationReq(
        request_id="r1", prompt="x", handles=[handle_of(name) for name in ("r1", "mine", "group")]
    )


@pytest.mark.usefixtures("named")
def test_other_requests_have_none() -> None:
    other = OneShotReq(request_id="r1")
    assert with_handles(other) is other


def test_the_index_knows_what_is_open() -> None:
    index = HandleIndex()
    index.add("r2", ["own-2", "shared"])
    index.add("r1", ["own-1", "shared"])
    assert (index.find("shared"), index.find("own-1"), index.find("unknown")) == (["r1", "r2"], ["r1"], [])
    index.remove("r2")
    index.remove("never added")
    assert (index.find("shared"), index.find("own-2")) == (["r1"], [])
    index.remove("r1")
    assert (index._handles, index._requests) == ({}, {})
