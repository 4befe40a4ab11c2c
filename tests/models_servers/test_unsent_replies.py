"""What waits for a gateway: in order, merged, and nothing in it that cannot travel."""

from __future__ import annotations

from typing import Any

import pytest

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Accepted, Delta, Failed, Finished, Output, StepReply, Tokenized
from vfastml.models_servers.unsent_replies import Unsent, frame_of, sendable


def told(unsent: Unsent) -> list[Any]:
    messages = []
    while (message := unsent.next_message()) is not None:
        messages.append(message)
        unsent.sent(message)
    return messages


def test_deltas_of_a_choice_become_one() -> None:
    unsent = Unsent()
    for delta in (
        Delta("a", 0, "x", [1], scores=[-0.5]),
        Delta("a", 1, "y", [2]),
        Delta("a", 0, "z", [3, 4], finish_reason="stop", stop_reason="!", scores=[-1.0, -2.0]),
    ):
        unsent.add(delta)
    unsent.add(Finished("a"))
    assert told(unsent) == [
        StepReply(
            [Delta("a", 0, "xz", [1, 3, 4], "stop", "!", [-0.5, -1.0, -2.0]), Delta("a", 1, "y", [2])],
            [Finished("a")],
        )
    ]


def test_acceptance_goes_before_deltas() -> None:
    unsent = Unsent()
    unsent.add(Delta("a", 0, "x"))
    unsent.add(Accepted("b", 3))
    unsent.add(Delta("b", 0, "y"))
    assert told(unsent) == [Accepted("b", 3), StepReply([Delta("a", 0, "x"), Delta("b", 0, "y")])]


def test_what_is_forgotten_is_not_told() -> None:
    unsent = Unsent()
    for reply in (Delta("a", 0, "x"), Delta("b", 0, "y"), Finished("a"), Finished("b")):
        unsent.add(reply)
    unsent.forget("a")
    assert told(unsent) == [StepReply([Delta("b", 0, "y")], [Finished("b")])]


def test_who_is_to_blame_for_a_step_that_cannot_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    unsent = Unsent()
    for name, text in (("good", "x"), ("bad", "\ud800"), ("longer", "x" * 50), ("worse", "\ud800")):
        unsent.add(Delta(name, 0, text))
        unsent.add(Delta(name, 1, text))
    assert unsent.unsendable() == ["bad", "worse"]
    unsent.forget("bad")
    unsent.forget("worse")
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 100)  # enough for each alone, and not for all
    assert unsent.unsendable() == ["longer"]


def test_ends_that_cannot_travel_together_are_blamed_one_by_one() -> None:
    unsent = Unsent()
    unsent.add(Finished("first"))
    unsent.add(Finished("second"))
    assert unsent.unsendable() == ["first"]
    unsent.forget("first")
    unsent.add(Failed("first", "InternalServerError", "It could not be sent."))
    assert unsent.unsendable() == ["second"]


def test_frames() -> None:
    assert frame_of(Finished("a")) == wire.encode_reply(Finished("a"))
    assert frame_of(StepReply([Delta("a", text="\ud800")])) is None


@pytest.mark.parametrize(
    "reply",
    [
        Output("a", object()),
        Output("a", "\ud800"),
        Output("a", 1 << 80),
        Delta("a", text="\ud800"),
        Output("a", {1j: 0}),
    ],
)
def test_what_cannot_be_encoded_fails(reply: Output | Delta) -> None:
    failed = sendable(reply)
    assert isinstance(failed, Failed)
    assert (failed.request_id, failed.kind) == ("a", "InternalServerError")


def test_what_is_too_large_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 100)
    small, large = Output("a", b"x" * 50), Output("a", b"x" * 101)
    assert sendable(small) is small
    assert isinstance(sendable(large), Failed)
    assert isinstance(sendable(Tokenized("a", [70_000] * 40, 512)), Failed)
