"""From the bytes of a stream to the text of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_apps.cli.server_events import answer_text, error_sentence
from prebuilt_apps.cli.service_error import ServiceError

DONE = b"data: [DONE]\n\n"


def chunk(text: str, end: str = "\n") -> bytes:
    body = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
    return f"data: {body}{end}{end}".encode()


@given(st.lists(st.text(min_size=1), max_size=5), st.integers(1, 9), st.sampled_from(["\n", "\r\n"]))
def test_any_text_in_pieces_of_any_size(texts: list[str], size: int, end: str) -> None:
    stream = b"".join(chunk(text, end) for text in texts) + DONE
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert list(answer_text(pieces)) == texts


def test_line_ends_that_are_none_to_the_protocol() -> None:
    text = "a\u2028b\u2029c\x85d"
    assert list(answer_text([chunk(text), DONE])) == [text]


@pytest.mark.parametrize(
    "more",
    [
        b": keep-alive\n\n",
        b"event: message\nid: 3\nretry: 10\n\n",
        b'data: {"choices": []}\n\n',
        b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": null}, "finish_reason": "stop"}]}\n\n',
        b'data: {"choices": [],\ndata: "usage": {}}\n\n',
    ],
)
def test_what_has_no_text_is_passed_over(more: bytes) -> None:
    assert list(answer_text([more, chunk("x"), more, b"data:[DONE]\n\n"])) == ["x"]


def test_nothing_after_done_is_read() -> None:
    assert list(answer_text([chunk("x"), DONE, chunk("y")])) == ["x"]


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (b'data: {"error": {"message": "The model server is gone."}}\n\n', "The model server is gone."),
        (b'event: error\ndata: {"error": {"code": 3}}\n\n', "The server failed in the middle of the answer."),
        (b"", "The connection ended before the answer did."),
        (b"data: [DONE]", "The connection ended before the answer did."),
        (b"data: {\n\n", "The server sent something that is no part of an answer."),
        (b"data: []\n\n", "The server sent something that is no part of an answer."),
    ],
)
def test_a_bad_end_is_told_after_what_came(end: bytes, sentence: str) -> None:
    text = answer_text([chunk("so far"), end])
    assert next(text) == "so far"
    with pytest.raises(ServiceError) as failure:
        next(text)
    assert str(failure.value) == sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": {"message": "No."}}, "No."),
        ({"error": "No."}, "No."),
        ({"error": {"message": 3}}, None),
        ({"detail": "No."}, None),
        (["No."], None),
        (None, None),
    ],
)
def test_sentence_of_an_error(body: Any, sentence: str | None) -> None:
    assert error_sentence(body) == sentence
