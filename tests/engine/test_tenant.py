"""Prefix caches of callers with different keys, whatever route dispatches for them."""

import asyncio

import pytest

from vfastml.engine.dispatch_requests import DetokenizeReq, OneShotReq, TextGenerationReq
from vfastml.engine.tenant import TENANT, Tenant, kept_apart


def text(salt: str = "") -> TextGenerationReq:
    return TextGenerationReq(request_id="r1", prompt="one two", cache_salt=salt)


@pytest.fixture
def tenant():
    before = TENANT.set(Tenant("one", b"first"))
    yield
    TENANT.reset(before)


def salt_for(tenant: bytes, salt: str) -> str:
    before = TENANT.set(Tenant("any", tenant))
    try:
        return kept_apart(text(salt)).cache_salt
    finally:
        TENANT.reset(before)


def test_nobody_in_particular_gets_what_is_asked_for():
    request = text("mine")
    assert kept_apart(request) is request


@pytest.mark.rule("S11")
def test_tenants_share_no_salt_and_keep_their_own():
    salts = [salt_for(tenant, asked) for tenant in (b"first", b"second") for asked in ("", "mine", "\ud800")]
    assert len(set(salts)) == 6
    assert salt_for(b"first", "mine") == salts[1]
    assert salt_for(b"second", salts[0]) not in salts


@pytest.mark.usefixtures("tenant")
def test_only_salt_and_share_change():
    kept = kept_apart(TextGenerationReq(request_id="r1", prompt="one two", n=2, stream=False, cache_salt="mine"))
    assert (kept.request_id, kept.prompt, kept.n, kept.stream) == ("r1", "one two", 2, False)
    assert (len(kept.share), kept.share_weight) == (32, 1.0)
    other = kept_apart(OneShotReq(request_id="r1", inputs=5))
    assert (other.inputs, other.share, other.share_weight) == (5, kept.share, 1.0)
    without_model = DetokenizeReq(request_id="r1")
    assert kept_apart(without_model) is without_model


@pytest.mark.rule("S11")
async def test_the_engine_keeps_callers_apart_in_tasks_too(start_server, start_engine):
    server = start_server()
    engine = await start_engine(server)

    async def ask(request_id: str):
        return await engine.dispatch(TextGenerationReq(request_id=request_id, prompt="one two")).get_result()

    await ask("nobody")
    before = TENANT.set(Tenant("one", b"first"))
    background = asyncio.create_task(ask("first"))
    TENANT.reset(before)
    await background
    assert [request.cache_salt for request in server.requests] == ["", salt_for(b"first", "")]
