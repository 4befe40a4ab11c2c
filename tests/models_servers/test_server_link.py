"""The model server's half of the wire, against raw sockets."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import zmq

from tests.models_servers.raw_gateway import PATIENCE_S, RawGateway
from vfastml.engine import wire
from vfastml.engine.dispatch_replies import (
    Accepted,
    CancelResult,
    Delta,
    Failed,
    Finished,
    Goaway,
    Hello,
    Load,
    Output,
    ServedModel,
    Status,
    StepReply,
    Tokenized,
)
from vfastml.engine.dispatch_requests import (
    CancelByHandleReq,
    CancelReq,
    OneShotReq,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.errors import InvalidRequestError, RateLimitError, RequestCancelledError
from vfastml.models_servers.admission import Admission
from vfastml.models_servers.inbox import Cancelled, InboxItem
from vfastml.models_servers.server_link import ServerLink

HELLO = Hello(wire.PROTOCOL, "server", "text_generation", [ServedModel("m", "m")])
ERRORS = {
    "refuse": InvalidRequestError("Too long.", param="prompt", code="context_length_exceeded"),
    "later": RateLimitError("Too much.", retry_after_s=3.0),
    "break": RuntimeError("/secret/path"),
    "assert": AssertionError("/secret/assertion"),
}


@dataclass
class QueuedPrompt:
    request_id: str

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 5)


def prepare(request: WorkReq) -> QueuedPrompt | Tokenized:
    if isinstance(request, TokenizeReq):
        return Tokenized(request.request_id, [1, 2], 512)
    if isinstance(request, TextGenerationReq) and request.prompt in ERRORS:
        raise ERRORS[request.prompt]
    return QueuedPrompt(request.request_id)


@pytest.fixture
def link() -> Iterator[ServerLink]:
    link = ServerLink("127.0.0.1", 0, prepare, Admission())
    yield link
    link.close()


@pytest.fixture
def port(link: ServerLink) -> int:
    """Of a link that is ready."""
    port = link.open()
    link.ready(HELLO)
    return port


@pytest.fixture
def short_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that does not read is noticed after a few messages, and not taken for frozen."""
    with_options = wire._with_options

    def small(socket: Any) -> Any:
        with_options(socket)
        for option in (zmq.SNDBUF, zmq.RCVBUF):
            socket.setsockopt(option, 1 << 14)
        return socket

    monkeypatch.setattr(wire, "_with_options", small)
    monkeypatch.setattr(wire, "SEND_QUEUE_MESSAGES", 2)
    monkeypatch.setattr(wire, "UNREAD_MESSAGES", 2)
    monkeypatch.setattr(wire, "HEARTBEAT_INTERVAL_MS", 0)


def text_request(request_id: str, prompt: str = "x") -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt=prompt)


def joined(port: int) -> RawGateway:
    """A gateway that has heard Hello."""
    gateway = RawGateway(port)
    assert gateway.next() == HELLO
    return gateway


def opened(link: ServerLink, gateway: RawGateway, *request_ids: str) -> None:
    """These requests are open."""
    for request_id in request_ids:
        gateway.send(text_request(request_id))
        assert gateway.next() == Accepted(request_id, 5)
        assert inbox(link) == QueuedPrompt(request_id)


def inbox(link: ServerLink) -> InboxItem:
    return link.inbox.get(timeout=PATIENCE_S)


def answers(gateway: RawGateway) -> None:
    """All that was sent before has been dealt with, and the link is well."""
    gateway.send(TokenizeReq(request_id="still-there", prompt="x"))
    gateway.until(lambda reply: True if isinstance(reply, Tokenized) and reply.request_id == "still-there" else None)


# -- sessions


def test_join_while_loading_gets_status_and_hello_follows(link: ServerLink) -> None:
    port = link.open()
    link.report("loading weights", 0.5)
    with RawGateway(port) as gateway:
        status = gateway.next_of_any_kind()
        assert isinstance(status, Status)
        assert (status.phase, status.progress, status.step_age_s) == ("loading weights", 0.5, 0.0)
        assert isinstance(gateway.next_of_any_kind(), Status)
        link.ready(HELLO)
        assert gateway.next() == HELLO
        assert gateway.next_status().phase == "ready"


def test_join_when_ready_gets_status_then_hello(port: int) -> None:
    with joined(port) as first, RawGateway(port) as second:
        assert isinstance(second.next_of_any_kind(), Status)
        assert second.next_of_any_kind() == HELLO
        answers(first)


def test_join_while_draining_gets_goaway_too(link: ServerLink, port: int) -> None:
    with joined(port) as first:
        link.drain("bye")
        assert first.next() == Goaway("bye")
        with RawGateway(port) as second:
            status = second.next_of_any_kind()
            assert isinstance(status, Status)
            assert status.phase == "draining"
            assert second.next() == HELLO
            assert second.next() == Goaway("bye")


def test_join_again_drops_what_that_gateway_had_open(link: ServerLink, port: int) -> None:
    with joined(port) as gateway, joined(port) as other:
        opened(link, gateway, "a", "b")
        opened(link, other, "c")
        gateway.join()
        assert {inbox(link), inbox(link)} == {Cancelled("a"), Cancelled("b")}
        assert gateway.next() == HELLO
        link.send([Delta("a", text="x"), Delta("c", text="y")], Load())
        assert other.next() == StepReply([Delta("c", text="y")])
        opened(link, gateway, "d")
        assert link.num_open == 2


def test_gateway_of_another_protocol_is_told_ours(port: int) -> None:
    with RawGateway(port, joins=False) as gateway:
        gateway.send_frames(wire._encoder.encode(["Join", wire.PROTOCOL + 1, "newer"]))
        assert gateway.next() == HELLO


def test_hello_that_cannot_be_encoded_is_refused(link: ServerLink) -> None:
    with pytest.raises(UnicodeEncodeError):
        link.ready(Hello(wire.PROTOCOL, "server", "text_generation", [ServedModel("\udcff", "m")]))
    assert not link.is_ready


# -- requests


def test_request_before_ready_is_turned_away(link: ServerLink) -> None:
    with RawGateway(link.open()) as gateway:
        gateway.send(text_request("a"))
        [failed] = ended(gateway)
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind, failed.retry_after_s) == ("a", "InternalServerTooBusyError", 1.0)
    assert link.inbox.empty()


def test_request_while_draining_is_turned_away_and_open_ones_go_on(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a")
        link.drain("bye")
        assert gateway.next() == Goaway("bye")
        gateway.send(text_request("b"))
        [failed] = ended(gateway)
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind) == ("b", "InternalServerTooBusyError")
        link.send([Delta("a", text="x", finish_reason="stop"), Finished("a")], Load())
        assert ended(gateway) == [Finished("a")]


def ended(gateway: RawGateway, count: int = 1) -> list[Finished | Failed]:
    """That many ends, of one step or of several."""
    ends: list[Finished | Failed] = []
    while len(ends) < count:
        reply = gateway.next()
        assert isinstance(reply, StepReply)
        ends += reply.ended
    return ends


def test_refusal_says_what_is_wrong(port: int) -> None:
    with joined(port) as gateway:
        gateway.send(text_request("a", "refuse"), text_request("b", "later"))
        failed = Failed("a", "InvalidRequestError", "Too long.", "prompt", "context_length_exceeded")
        later = Failed("b", "RateLimitError", "Too much.", None, "rate_limit_exceeded", 3.0)
        assert ended(gateway, 2) == [failed, later]


@pytest.mark.rule("S10")
@pytest.mark.parametrize("prompt", ["break", "assert"])
def test_broken_prepare_tells_nothing(port: int, prompt: str) -> None:
    with joined(port) as gateway:
        gateway.send(text_request("a", prompt))
        frame = gateway.next_frame()
        while isinstance(wire.decode_reply(frame), Status):
            frame = gateway.next_frame()
        assert b"InternalServerError" in frame
        assert b"secret" not in frame
        answers(gateway)


def test_same_id_twice_is_refused_and_the_first_goes_on(link: ServerLink, port: int) -> None:
    with joined(port) as gateway, joined(port) as other:
        opened(link, gateway, "a")
        other.send(text_request("a"))
        [failed] = ended(other)
        assert isinstance(failed, Failed)
        link.send([Finished("a")], Load())
        assert ended(gateway) == [Finished("a")]


def test_accepted_comes_before_all_else(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        for number in range(50):
            gateway.send(text_request(f"r{number}"))
            inbox(link)
            link.send([Delta(f"r{number}", text="x"), Finished(f"r{number}")], Load())
            assert gateway.next() == Accepted(f"r{number}", 5)
            assert gateway.next() == StepReply([Delta(f"r{number}", text="x")], [Finished(f"r{number}")])


def test_one_step_is_one_message_for_each_gateway(link: ServerLink, port: int) -> None:
    with joined(port) as one, joined(port) as two:
        opened(link, one, "a", "b")
        opened(link, two, "c")
        for text in "xyz":
            link.send([Delta(request_id, text=text) for request_id in "abc"], Load())
            assert one.next() == StepReply([Delta("a", text=text), Delta("b", text=text)])
            assert two.next() == StepReply([Delta("c", text=text)])


def test_nothing_follows_a_terminal(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b", "c")
        link.send([Finished("a"), Output("c", [1])], Load())
        assert gateway.next() == Output("c", [1])
        assert ended(gateway) == [Finished("a")]
        assert link.num_open == 1
        link.send([Delta("a", text="x"), Finished("a"), Delta("b", text="y"), Output("c", 2)], Load())
        assert gateway.next() == StepReply([Delta("b", text="y")])


def test_cancelled_request_is_told_nothing_more(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        gateway.send(CancelReq(request_id="a"), CancelReq(request_id="a"), CancelReq(request_id="unknown"))
        assert inbox(link) == Cancelled("a")
        answers(gateway)
        assert link.inbox.empty()
        link.send([Delta("a", text="x"), Finished("a"), Delta("b", text="y")], Load())
        assert gateway.next() == StepReply([Delta("b", text="y")])


def test_cancel_of_another_gateways_request_is_ignored(link: ServerLink, port: int) -> None:
    with joined(port) as owner, joined(port) as other:
        opened(link, owner, "a")
        other.send(CancelReq(request_id="a"))
        answers(other)
        assert link.inbox.empty()
        link.send([Finished("a")], Load())
        assert ended(owner) == [Finished("a")]


def test_cancel_by_handle_ends_all_that_have_it_whosever_they_are(link: ServerLink, port: int) -> None:
    with joined(port) as owner, joined(port) as other:
        for gateway, request_id, handles in (
            (owner, "a", ["own", "shared"]),
            (owner, "b", []),
            (other, "c", ["shared"]),
        ):
            gateway.send(TextGenerationReq(request_id=request_id, prompt="x", handles=handles))
            assert gateway.next() == Accepted(request_id, 5)
            assert isinstance(inbox(link), QueuedPrompt)
        other.send(CancelByHandleReq(request_id="q1", handle="shared"))
        assert other.next() == CancelResult("q1", 2)
        cancelled = RequestCancelledError()
        assert ended(owner) == [Failed.of("a", cancelled)]
        assert ended(other) == [Failed.of("c", cancelled)]
        assert [inbox(link), inbox(link)] == [Cancelled("a"), Cancelled("c")]
        assert link.num_open == 1
        for number, handle in enumerate(("shared", "own", "unknown")):
            other.send(CancelByHandleReq(request_id=f"again-{number}", handle=handle))
            assert other.next() == CancelResult(f"again-{number}", 0)
        link.send([Delta("a", text="x"), Finished("a"), Finished("b")], Load())
        assert ended(owner) == [Finished("b")]


def test_a_damaged_frame_ends_its_gateways_session(link: ServerLink, port: int) -> None:
    with joined(port) as gateway, joined(port) as other:
        opened(link, gateway, "a")
        opened(link, other, "b")
        gateway.send_frames(wire.encode_request(text_request("c"))[:-1])
        while (frame := gateway.next_frame()) != wire.DAMAGED:
            assert isinstance(wire.decode_reply(frame), Status)
        assert inbox(link) == Cancelled("a")
        gateway.join()
        assert gateway.next() == HELLO
        opened(link, gateway, "c")
        assert link.num_open == 2


def test_a_strangers_damaged_frame_changes_nothing(link: ServerLink, port: int) -> None:
    with RawGateway(port, joins=False) as stranger, joined(port) as gateway:
        opened(link, gateway, "a")
        stranger.send_frames(b"garbage")
        answers(gateway)
        assert link.num_open == 1


@pytest.mark.rule("S1")
def test_any_bytes_leave_the_link_well(link: ServerLink, port: int) -> None:
    rng = random.Random(5)
    valid = [
        wire.opened(wire.encode_request(request))
        for request in (text_request("f"), TokenizeReq(request_id="f"), OneShotReq(request_id="f", inputs={"a": [1.5]}))
    ]
    with joined(port) as gateway, joined(port) as other:
        gateway.send_frames(wire.sealed(b""))
        gateway.send_frames(wire.sealed(wire._encoder.encode(["NoSuchRequest", 1])))
        gateway.send_frames(*[b"\xc0"] * 20, b"", wire.sealed(b"\xc0" * 20)[20:])
        for _ in range(2000):
            message = bytearray(rng.choice(valid) if rng.random() < 0.5 else rng.randbytes(rng.randrange(64)))
            for _ in range(rng.randrange(4) if message else 0):
                message[rng.randrange(len(message))] = rng.randrange(256)
            gateway.send_frames(wire.sealed(bytes(message)))
        answers(gateway)
        answers(other)
        other.send(text_request("after all"))
        assert other.next() == Accepted("after all", 5)
        while inbox(link) != QueuedPrompt("after all"):
            pass  # some of the frames were requests


# -- what cannot be sent


def test_output_that_cannot_be_encoded_fails_alone(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        link.send([Output("a", object()), Output("b", [1, "x", b"y"])], Load())
        assert gateway.next() == Output("b", [1, "x", b"y"])
        [failed] = ended(gateway)
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind) == ("a", "InternalServerError")
        assert inbox(link) == Cancelled("a")
        answers(gateway)


def test_delta_that_cannot_be_encoded_fails_its_request_alone(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        link.send([Delta("a", text="\ud800"), Finished("a"), Delta("b", text="x")], Load())
        reply = gateway.next()
        assert isinstance(reply, StepReply)
        assert reply.deltas == [Delta("b", text="x")]
        [failed] = reply.ended
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind) == ("a", "InternalServerError")
        assert inbox(link) == Cancelled("a")
        assert link.num_open == 1
        answers(gateway)


def test_step_that_is_too_large_for_one_message_fails_the_longest(
    link: ServerLink, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 300)
        link.send([Delta("a", text="x" * 180), Delta("b", text="y" * 170)], Load())
        reply = gateway.next()
        assert isinstance(reply, StepReply)
        assert reply.deltas == [Delta("b", text="y" * 170)]
        assert [end.request_id for end in reply.ended] == ["a"]


def test_gateway_that_is_gone_has_its_requests_dropped(link: ServerLink, port: int) -> None:
    gone, other = joined(port), joined(port)
    opened(link, gone, "a", "b")
    opened(link, other, "c")
    gone.close()
    assert {inbox(link), inbox(link)} == {Cancelled("a"), Cancelled("b")}
    assert link.num_open == 1
    link.send([Finished("c")], Load())
    assert ended(other) == [Finished("c")]
    other.close()


@pytest.mark.usefixtures("short_queues")
def test_gateway_that_does_not_read_holds_up_nobody_and_gets_all_later(link: ServerLink) -> None:
    port = link.open()
    link.ready(HELLO)
    steps, piece = 300, "0123456789" * 500
    with joined(port) as stuck, joined(port) as other:
        opened(link, stuck, "slow")
        opened(link, other, "fast")
        for step in range(steps):
            link.send([Delta("slow", text=f"{step}:{piece};"), Delta("fast", text=str(step))], Load())
            assert other.next() == StepReply([Delta("fast", text=str(step))])
        assert not link.is_idle
        stuck.send(text_request("late"))
        assert inbox(link) == QueuedPrompt("late")
        link.send([Delta("slow", finish_reason="stop"), Finished("slow"), Delta("late", text="!")], Load())
        link.send([Finished("late"), Finished("fast")], Load())
        assert ended(other) == [Finished("fast")]
        texts, accepted, ends = everything(stuck, {"slow", "late"})
        assert len(texts["slow"]) < steps / 2  # merged, instead of one by one
        assert "".join(texts["slow"]) == "".join(f"{step}:{piece};" for step in range(steps))
        assert "".join(texts["late"]) == "!"
        assert (accepted, ends) == (["late"], ["slow", "late"])
    assert link.is_idle


def everything(gateway: RawGateway, ids: set[str]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Texts, acceptances and ends, in the order in which they came, until each of these has ended."""
    texts: dict[str, list[str]] = {request_id: [] for request_id in ids}
    accepted: list[str] = []
    ends: list[str] = []
    while set(ends) != ids:
        reply = gateway.next()
        if isinstance(reply, Accepted):
            accepted.append(reply.request_id)
            continue
        assert isinstance(reply, StepReply)
        for delta in reply.deltas:
            assert delta.request_id not in ends
            texts[delta.request_id].append(delta.text)
        ends += [end.request_id for end in reply.ended]
    return texts, accepted, ends


@pytest.mark.usefixtures("short_queues")
def test_what_waits_for_a_full_queue_goes_with_its_request(link: ServerLink) -> None:
    port = link.open()
    link.ready(HELLO)
    with joined(port) as stuck, joined(port) as other:
        opened(link, stuck, "cancelled", "kept")
        opened(link, other, "fast")
        for step in range(300):
            link.send([Delta("kept", text="x" * 5000), Delta("fast", text=str(step))], Load())
            other.next()
        link.send([Delta("cancelled", text="unwanted")], Load())
        stuck.send(CancelReq(request_id="cancelled"))
        assert inbox(link) == Cancelled("cancelled")
        link.send([Finished("kept")], Load())
        texts, _, ends = everything(stuck, {"kept"})
        assert (len("".join(texts["kept"])), ends) == (300 * 5000, ["kept"])


@pytest.mark.usefixtures("short_queues")
def test_a_cancel_is_answered_when_a_full_queue_has_room(link: ServerLink) -> None:
    port = link.open()
    link.ready(HELLO)
    with joined(port) as stuck, joined(port) as other:
        opened(link, stuck, "slow")
        opened(link, other, "fast")
        for step in range(300):
            link.send([Delta("slow", text="x" * 5000), Delta("fast", text=str(step))], Load())
            other.next()
        stuck.send(*(CancelByHandleReq(request_id=f"q{number}", handle="unknown") for number in range(5)))
        stuck.send(CancelReq(request_id="slow"))
        assert inbox(link) == Cancelled("slow")
        answers = [stuck.until(lambda reply: reply if isinstance(reply, CancelResult) else None) for _ in range(5)]
        assert answers == [CancelResult(f"q{number}", 0) for number in range(5)]


@pytest.mark.usefixtures("short_queues")
def test_the_end_of_a_session_waits_for_a_full_queue(link: ServerLink) -> None:
    port = link.open()
    link.ready(HELLO)
    with joined(port) as stuck, joined(port) as other:
        opened(link, stuck, "slow")
        opened(link, other, "fast")
        for step in range(300):
            link.send([Delta("slow", text="x" * 5000), Delta("fast", text=str(step))], Load())
            other.next()
        stuck.send_frames(b"garbage")
        assert inbox(link) == Cancelled("slow")
        assert not link.is_idle
        while stuck.next_frame() != wire.DAMAGED:
            pass
        stuck.join()
        assert isinstance(stuck.next(), Hello)


# -- beats


def test_beats_say_how_long_a_step_has_been_under_way(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        link.step_begins()
        ages = [gateway.until(lambda reply: step_age(reply)) for _ in range(4)]
        assert ages == sorted(set(ages))
        assert ages[-1] - ages[0] > 0.3
        link.step_ended()
        gateway.until(lambda reply: True if isinstance(reply, Status) and reply.step_age_s == 0 else None)


def step_age(reply: object) -> float | None:
    return reply.step_age_s if isinstance(reply, Status) and reply.step_age_s > 0 else None


def test_change_of_load_does_not_wait_for_the_beat(link: ServerLink, port: int) -> None:
    took = []
    with joined(port) as gateway:
        for running in range(1, 16):
            began = time.monotonic()
            link.send([], Load(running=running, total_blocks=9))
            while gateway.next_status().load.running != running:
                pass
            took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.1  # a beat comes 0.2 s after the one before


def test_open_requests_are_counted(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        gateway.until(lambda reply: True if isinstance(reply, Status) and reply.load.open_requests == 2 else None)


# -- the end


def test_close_sends_the_last_replies_and_fails_the_rest(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a", "b")
        link.send([Delta("a", text="x" * 100_000, finish_reason="stop"), Finished("a")], Load())
        closing = threading.Thread(target=link.close)
        closing.start()
        finished, failed = ended(gateway, 2)
        closing.join(PATIENCE_S)
        assert finished == Finished("a")
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind) == ("b", "InternalServerTooBusyError")


def test_what_was_sent_can_be_read_after_the_close(link: ServerLink, port: int) -> None:
    with joined(port) as gateway:
        opened(link, gateway, "a")
        link.send([Finished("a")], Load())
        link.close()
        assert ended(gateway) == [Finished("a")]


def test_port_is_free_after_close(link: ServerLink, port: int) -> None:
    link.close()
    again = ServerLink("127.0.0.1", port, prepare, Admission())
    assert again.open() == port
    again.close()


def test_taken_port_is_an_error_and_close_is_harmless(port: int) -> None:
    second = ServerLink("127.0.0.1", port, prepare, Admission())
    with pytest.raises(zmq.ZMQError, match="in use"):
        second.open()
    second.close()
