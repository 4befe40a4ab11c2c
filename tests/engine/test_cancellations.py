"""Requests that are cancelled by what their caller calls them, wherever they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
import zmq

from tests.engine.fake_server import FakeServer, first_word, until
from vfastml.engine import cancellations
from vfastml.engine.cancellations import Cancellations
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import CancelResult
from vfastml.engine.dispatch_requests import CancelByHandleReq, TextGenerationReq
from vfastml.engine.request_handles import REQUEST_NAME, handle_of
from vfastml.engine.server_table import ServerState
from vfastml.engine.tenant import TENANT, Tenant
from vfastml.engine.wire import SEND_QUEUE_MESSAGES, decode_request
from vfastml.errors import InternalServerTooBusyError


def text(request_id: str = "r1", **fields) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt="one two", **fields)


@contextlib.contextmanager
def caller(tenant: bytes) -> Iterator[None]:
    before = TENANT.set(Tenant("any", tenant))
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
    await until(lambda: server.asked_handles == [handle_of(name)])  # another gateway may have one of that name too
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
    # Who has found the request does not wait for the others to hear of it.
    await until(lambda: all(server.asked_handles for server in servers))
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
    waiting = Cancellations(lambda endpoint, frame: sent.append(frame) is None)
    asking = waiting.tell("h", ["a", "b"])
    question = decode_request(sent[0])
    assert isinstance(question, CancelByHandleReq)
    assert (question, question.handle) == (decode_request(sent[1]), "h")
    for endpoint, request_id in (("c", question.request_id), ("a", "unknown")):
        waiting.on_result(endpoint, CancelResult(request_id, 9))
    for count in (1, 5):
        waiting.on_result("a", CancelResult(question.request_id, count))
    waiting.on_result("b", CancelResult(question.request_id, 2))
    assert [answer is not None and answer.result() for answer in asking] == [1, 2]
    waiting.on_result("b", CancelResult(question.request_id, 2))
    assert not any(waiting._unanswered.values())


class Wire:
    """What is sent to servers that never answer."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.full: set[str] = set()
        self.broken: set[str] = set()

    def send(self, endpoint: str, frame: bytes) -> bool:
        if endpoint in self.broken:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        if endpoint not in self.full:
            self.sent.append((endpoint, decode_request(frame).request_id))
        return endpoint not in self.full


async def test_a_server_that_is_silent_is_asked_only_so_often():
    wire = Wire()
    waiting = Cancellations(wire.send)
    for _ in range(cancellations._MAX_UNANSWERED):
        asking = asyncio.create_task(waiting.ask("h", ["a"]))
        await asyncio.sleep(0)
        asking.cancel()  # who goes away does not take the question back
    for _ in range(3):
        with pytest.raises(InternalServerTooBusyError):
            await waiting.ask("h", ["a"])
    assert waiting.tell("h", ["a"]) == [None]
    assert len(wire.sent) == cancellations._MAX_UNANSWERED < SEND_QUEUE_MESSAGES
    assert None not in waiting.tell("h", ["b"])
    waiting.on_result(wire.sent[0][0], CancelResult(wire.sent[0][1], 0))
    assert None not in waiting.tell("h", ["a"])
    assert waiting.tell("h", ["a"]) == [None]
    waiting.on_lost("a")
    assert None not in waiting.tell("h", ["a"])


async def test_a_server_that_cannot_be_asked_is_silent():
    wire = Wire()
    wire.full = {"a"}
    waiting = Cancellations(wire.send)
    with pytest.raises(InternalServerTooBusyError):
        await waiting.ask("h", ["a"])
    for count in (0, 1):
        asking = asyncio.create_task(waiting.ask("h", ["a", "b"]))
        await asyncio.sleep(0)
        waiting.on_result("b", CancelResult(wire.sent[-1][1], count))
        if count:
            assert await asking
        else:
            with pytest.raises(InternalServerTooBusyError):
                await asking
    assert not any(waiting._unanswered.values())


async def test_what_was_not_sent_is_not_waited_for():
    wire = Wire()
    wire.broken = {"b"}
    waiting = Cancellations(wire.send)
    with pytest.raises(zmq.ZMQError):
        await waiting.ask("h", ["a", "b", "c"])
    waiting.on_result("a", CancelResult(wire.sent[0][1], 0))
    assert not any(waiting._unanswered.values())


@pytest.mark.parametrize("where", ["here", "in another server"])
async def test_who_has_found_it_does_not_wait_for_a_silent_server(start_server, start_engine, monkeypatch, where):
    monkeypatch.setattr(cancellations, "_PATIENCE_S", 600)
    silent, other = start_server(answer=first_word), start_server(answer=first_word)
    silent.num_found = None
    engine = await start_engine(silent, other)
    await all_live(engine)
    if where == "here":
        task = engine.dispatch(text())
    else:
        other.num_found = 1
    assert await asyncio.wait_for(engine.cancel_by_name("r1"), 4)
    if where == "here":
        assert await kind_of_error(task) == "RequestCancelledError"
    await until(lambda: len(silent.asked_handles) == len(other.asked_handles) == 1)


async def test_a_server_that_has_begun_anew_has_nothing(start_server, start_engine):
    server = start_server()
    server.num_found = None
    engine = await start_engine(server)
    await all_live(engine)
    asking = asyncio.create_task(engine.cancel_by_name("r1"))
    await until(lambda: server.asked_handles)
    server.server_id = "another"
    server.become_ready()
    assert await asking is False
