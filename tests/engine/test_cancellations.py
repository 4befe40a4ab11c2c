"""Requests that are cancelled by what their caller calls them, wherever they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.engine.fake_server import FakeServer, first_word, until
from vfastml.engine import cancellations
from vfastml.engine.cancellations import Cancellations
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import CancelResult
from vfastml.engine.dispatch_requests import CancelByHandleReq, TextGenerationReq
from vfastml.engine.request_handles import REQUEST_NAME, handle_of
from vfastml.engine.server_table import ServerState
from vfastml.engine.tenant import TENANT
from vfastml.engine.wire import decode_request
from vfastml.errors import InternalServerTooBusyError


def text(request_id: str = "r1", **fields) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt="one two", **fields)


@contextlib.contextmanager
def caller(tenant: bytes) -> Iterator[None]:
    before = TENANT.set(tenant)
    try:
        yield
    finally:
        TENANT.reset(before)


async def all_live(engine: DispatchEngine) -> None:
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))


async def kind_of_error(task) -> str:
    answer = await asyncio.wait_for(task.get_result(), 4)
    return answer.error.kind


@pytest.mark.parametrize("name", ["r1", "group", "mine"])
async def test_what_is_open_here_is_cancelled_here_and_in_its_server(start_server, start_engine, name):
    server: FakeServer = start_server(answer=first_word)
    engine = await start_engine(server)
    before = REQUEST_NAME.set("mine")
    task = engine.dispatch(text(handles=["group"]))
    REQUEST_NAME.reset(before)
    await anext(aiter(task))
    assert await engine.cancel_by_name(name)
    assert await kind_of_error(task) == "RequestCancelledError"
    await until(lambda: server.cancelled == ["r1"])
    assert server.asked_handles == [handle_of(name)]  # another gateway may have one of that name too
    assert not await engine.cancel_by_name(name)


async def test_what_is_held_is_cancelled(start_engine):
    engine = await start_engine("tcp://127.0.0.1:1")
    task = engine.dispatch(text())
    assert engine.held_requests == 1
    assert await engine.cancel_by_name("r1")
    assert await kind_of_error(task) == "RequestCancelledError"


async def test_all_of_one_name_are_cancelled_and_no_others(start_server, start_engine):
    engine = await start_engine(start_server(answer=first_word))
    tasks = [engine.dispatch(text(f"r{number}", handles=["group"])) for number in range(3)]
    other = engine.dispatch(text("other"))
    assert await engine.cancel_by_name("group")
    assert [await kind_of_error(task) for task in tasks] == ["RequestCancelledError"] * 3
    assert engine.open_requests == 1
    other.cancel()


async def test_another_caller_finds_nothing(start_server, start_engine):
    engine = await start_engine(start_server(answer=first_word))
    with caller(b"first"):
        task = engine.dispatch(text())
    for stranger in (b"second", b""):
        with caller(stranger):
            assert not await engine.cancel_by_name("r1")
    with caller(b"first"):
        assert await engine.cancel_by_name("r1")
    assert await kind_of_error(task) == "RequestCancelledError"


@pytest.mark.parametrize(("counts", "expected"), [((0, 0), False), ((0, 1), True), ((2, 0), True)])
async def test_every_server_is_asked(start_server, start_engine, counts, expected):
    servers = [start_server() for _ in counts]
    for server, count in zip(servers, counts, strict=True):
        server.num_found = count
    engine = await start_engine(*servers)
    await all_live(engine)
    assert await engine.cancel_by_name("elsewhere") == expected
    assert [server.asked_handles for server in servers] == [[handle_of("elsewhere")]] * 2


async def test_a_silent_server_leaves_it_open_unless_it_was_found(start_server, start_engine, monkeypatch):
    monkeypatch.setattr(cancellations, "_PATIENCE_S", 0.05)
    silent, other = start_server(answer=first_word), start_server(answer=first_word)
    silent.num_found = None
    engine = await start_engine(silent, other)
    await all_live(engine)
    with pytest.raises(InternalServerTooBusyError):
        await engine.cancel_by_name("r1")
    other.num_found = 1
    assert await engine.cancel_by_name("r1")
    other.num_found = 0
    task = engine.dispatch(text())
    assert await engine.cancel_by_name("r1")
    assert await kind_of_error(task) == "RequestCancelledError"


async def test_a_server_that_is_lost_meanwhile_has_nothing(start_server, start_engine):
    server = start_server()
    server.num_found = None
    engine = await start_engine(server)
    await all_live(engine)
    asking = asyncio.create_task(engine.cancel_by_name("r1"))
    await until(lambda: server.asked_handles)
    await server.stop()
    assert await asyncio.wait_for(asking, 2) is False


async def test_a_server_that_is_loading_is_not_asked(start_server, start_engine):
    server = start_server(loading=True)
    engine = await start_engine(server)
    await until(lambda: server.joins)
    assert not await engine.cancel_by_name("r1")
    assert server.asked_handles == []


async def test_late_foreign_and_repeated_answers_are_ignored():
    sent: list[bytes] = []
    waiting = Cancellations(lambda endpoint, frame: sent.append(frame))
    asking = asyncio.create_task(waiting.ask("h", ["a", "b"]))
    await asyncio.sleep(0)
    question = decode_request(sent[0])
    assert isinstance(question, CancelByHandleReq)
    assert (question, question.handle) == (decode_request(sent[1]), "h")
    for endpoint, request_id in (("c", question.request_id), ("a", "unknown")):
        waiting.on_result(endpoint, CancelResult(request_id, 9))
    for count in (1, 5):
        waiting.on_result("a", CancelResult(question.request_id, count))
    waiting.on_result("b", CancelResult(question.request_id, 2))
    assert await asking == 3
    waiting.on_result("b", CancelResult(question.request_id, 2))
    assert waiting._answers == {}


async def test_who_stops_asking_leaves_nothing_behind():
    waiting = Cancellations(lambda endpoint, frame: None)
    asking = asyncio.create_task(waiting.ask("h", ["a"]))
    await asyncio.sleep(0)
    assert len(waiting._answers) == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert waiting._answers == {}
