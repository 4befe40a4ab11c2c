"""A model server's link whose queue is full, against raw sockets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import zmq

from tests.e2e.service import wait_until
from tests.models_servers.raw_gateway import PATIENCE_S, RawGateway
from vfastml.engine import wire
from vfastml.engine.dispatch_replies import (
    Accepted,
    Failed,
    Finished,
    Hello,
    Limits,
    Load,
    ServedModel,
    StepReply,
    Tokenized,
)
from vfastml.engine.dispatch_requests import CancelReq, OneShotReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.models_servers import gateways
from vfastml.models_servers.admission import Admission
from vfastml.models_servers.server_link import ServerLink

HELLO = Hello(wire.PROTOCOL, "server", "text_generation", [ServedModel("m", "m")], Limits(max_num_seqs=2))


@dataclass
class SizedPrompt:
    request_id: str
    num_tokens: int
    num_choices: int

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 1, num_choices=self.num_choices)


@dataclass
class PlainWork:
    request_id: str

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 0)


class Preparer:
    """Counts what it has prepared. A prompt has a token for each character."""

    def __init__(self) -> None:
        self.prepared = 0

    def __call__(self, request: WorkReq) -> SizedPrompt | PlainWork | Tokenized:
        self.prepared += 1
        if isinstance(request, TokenizeReq):
            return Tokenized(request.request_id, [], 9)
        if isinstance(request, TextGenerationReq):
            return SizedPrompt(request.request_id, len(request.prompt or ""), request.n or 1)
        return PlainWork(request.request_id)


@pytest.fixture
def prepare() -> Preparer:
    return Preparer()


@pytest.fixture
def link(prepare: Preparer) -> Iterator[ServerLink]:
    """Two run, two may wait, with ten tokens."""
    link = ServerLink("127.0.0.1", 0, prepare, Admission(max_waiting=2, max_waiting_tokens=10))
    yield link
    link.close()


@pytest.fixture
def gateway(link: ServerLink) -> Iterator[RawGateway]:
    port = link.open()
    link.ready(HELLO)
    with RawGateway(port) as gateway:
        assert gateway.next() == HELLO
        yield gateway


def text(request_id: str, prompt: str = "x", n: int = 1) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt=prompt, n=n)


def taken(gateway: RawGateway, request: WorkReq) -> bool:
    """Sends it, and says whether it was accepted; else the queue was full."""
    gateway.send(request)
    reply = gateway.next()
    if isinstance(reply, Accepted):
        return True
    assert isinstance(reply, StepReply)
    [failed] = reply.ended
    assert isinstance(failed, Failed)
    assert (failed.request_id, failed.kind, failed.code) == (request.request_id, "RateLimitError", "queue_full")
    assert failed.retry_after_s is not None
    assert failed.retry_after_s >= 1
    return False


def test_what_is_too_much_is_refused_before_it_is_prepared(
    link: ServerLink, gateway: RawGateway, prepare: Preparer
) -> None:
    assert [taken(gateway, text(request_id)) for request_id in "abcdef"] == [True] * 4 + [False] * 2
    assert not taken(gateway, OneShotReq(request_id="g"))
    assert prepare.prepared == 4
    assert [link.inbox.get(timeout=PATIENCE_S).request_id for _ in range(4)] == [*"abcd"]  # type: ignore[union-attr]
    assert link.inbox.empty()
    assert link.num_open == 4


def test_what_needs_no_place_is_answered_all_the_same(gateway: RawGateway) -> None:
    for request_id in "abcd":
        assert taken(gateway, text(request_id))
    gateway.send(TokenizeReq(request_id="e", prompt="x"))
    assert gateway.next() == Tokenized("e", [], 9)


def test_an_end_of_any_kind_makes_room(link: ServerLink, gateway: RawGateway) -> None:
    for request_id in "abcd":
        assert taken(gateway, text(request_id))
    link.send([Finished("a")], Load())
    assert gateway.next() == StepReply([], [Finished("a")])
    assert taken(gateway, text("e"))
    gateway.send(CancelReq(request_id="e"))
    assert taken(gateway, text("f"))
    assert not taken(gateway, text("g"))
    gateway.join()  # as after a lost connection: nothing of it is open any more
    assert gateway.next() == HELLO
    assert [taken(gateway, text(request_id)) for request_id in "hijkl"] == [True] * 4 + [False]


def test_a_request_that_is_refused_for_another_reason_takes_no_place(gateway: RawGateway) -> None:
    assert taken(gateway, text("a"))
    for _ in range(9):
        gateway.send(text("a"))
        assert isinstance(gateway.next(), StepReply)
    assert [taken(gateway, text(request_id)) for request_id in "bcde"] == [True] * 3 + [False]


def test_tokens_and_choices_count(gateway: RawGateway) -> None:
    assert taken(gateway, text("long", "x" * 50, n=2))
    assert taken(gateway, text("waits", "x" * 6))
    assert not taken(gateway, text("wide", "x", n=2))
    assert not taken(gateway, text("too long", "x" * 5))
    assert taken(gateway, text("fits", "x" * 4))


def test_work_without_tokens_is_bounded_by_number(gateway: RawGateway) -> None:
    assert [taken(gateway, OneShotReq(request_id=request_id)) for request_id in "abcde"] == [True] * 4 + [False]


def test_who_asks_and_never_reads_is_let_go(
    link: ServerLink, gateway: RawGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gateways, "_MAX_UNSENT", 10)
    monkeypatch.setattr(link._gateways, "_send", _is_full)
    for number in range(12):
        gateway.send(TokenizeReq(request_id=str(number), prompt="x"))
    wait_until(lambda: "has not taken anything" in caplog.text, PATIENCE_S, "it is let go")


def _is_full(identity: bytes, frame: bytes) -> None:
    raise zmq.Again
