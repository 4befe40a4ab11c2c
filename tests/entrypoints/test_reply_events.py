"""The bytes of a stream's events: encoded around a template or as a whole, they are the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfastml.engine.dispatch_replies import Accepted, Delta
from vfastml.entrypoints.openai.replies import ReplyEvents
from vfastml.entrypoints.openai.reply_styles import ChatStyle, CompletionStyle, ReplyStyle
from vfastml.entrypoints.streaming import event

TEXTS = ["word", "", ' "quoted" \\', "\n\r\t\0", "é日本\U0001f600", "a\x85b\u2028c\u2029d", "x" * 5000, "{}", "null"]
ENDS = [(None, None), ("stop", None), ("stop", "END"), ("length", None), (None, "odd")]
DELTAS = [
    Delta("r", 0, text, token_ids, finish_reason, stop_reason)
    for text in TEXTS
    for token_ids in (None, [], [1, 2])
    for finish_reason, stop_reason in ENDS
]
SETUPS = list(itertools.product((ChatStyle(), CompletionStyle()), (False, True), (False, True)))


def events_of(style: ReplyStyle, with_usage: bool, accepted: Sequence[Accepted]) -> ReplyEvents:
    return ReplyEvents(style, "id-1", 'm"\u2028', accepted, choices_per_prompt=2, with_usage=with_usage)


def whole_events(
    events: ReplyEvents,
    style: ReplyStyle,
    with_usage: bool,
    accepted: Sequence[Accepted],
    said: Sequence[tuple[int, Delta]],
) -> Iterator[bytes]:
    """Each chunk as a dict of its own, encoded from its first byte to its last."""
    opened: set[int] = set()
    for position, delta in said:
        index = 2 * position + delta.index
        choices = list(style.pieces(index, delta))
        ids = accepted[position].prompt_token_ids
        at_top = {"prompt_token_ids": ids} if len(accepted) == 1 and ids is not None and not opened else {}
        if choices and index not in opened:
            opened.add(index)
            opening = style.opening(index)
            choices = choices if opening is None else [opening, *choices]
            if isinstance(style, CompletionStyle) and ids is not None:
                choices[0]["prompt_token_ids"] = ids
        for choice in choices:
            usage: dict[str, Any] = {"usage": None} if with_usage else {}
            yield event({**events._head, "choices": [choice], **usage, **at_top})
            at_top = {}


def accepted_by(prompts: int, with_ids: bool) -> list[Accepted]:
    return [Accepted(f"r{position}", 3, [position, 8, 9] if with_ids else None) for position in range(prompts)]


@pytest.mark.parametrize(("style", "with_usage", "with_ids"), SETUPS)
@pytest.mark.parametrize("prompts", [1, 2])
def test_every_kind_of_delta(style: ReplyStyle, with_usage: bool, with_ids: bool, prompts: int) -> None:
    accepted = accepted_by(prompts, with_ids)
    events = events_of(style, with_usage, accepted)
    said = [(position, delta) for delta in DELTAS for position in range(prompts)]
    got = b"".join(events.delta(position, delta) for position, delta in said)
    assert got == b"".join(whole_events(events, type(style)(), with_usage, accepted, said))


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.text(), st.sampled_from([None, [5]]), st.booleans())),
    st.sampled_from(SETUPS),
)
def test_any_text_in_any_order(
    said: list[tuple[int, int, str, list[int] | None, bool]], setup: tuple[ReplyStyle, bool, bool]
) -> None:
    style, with_usage, with_ids = setup
    accepted = accepted_by(2, with_ids)
    events = events_of(style, with_usage, accepted)
    deltas = [(p, Delta("r", index, text, ids, "stop" if end else None)) for p, index, text, ids, end in said]
    got = b"".join(events.delta(position, delta) for position, delta in deltas)
    assert got == b"".join(whole_events(events, type(style)(), with_usage, accepted, deltas))


def test_an_event_is_two_lines_however_clients_split_them() -> None:
    events = events_of(ChatStyle(), False, accepted_by(1, False))
    events.delta(0, Delta("r", 0, "first"))
    lines = events.delta(0, Delta("r", 0, "a\x85b\u2028c\u2029d\n\r\x0b")).decode().splitlines()
    assert [bool(line) for line in lines] == [True, False]
