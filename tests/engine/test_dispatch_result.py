"""Replies put together: with an event loop or without, a request comes to the same."""

from __future__ import annotations

from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Failed,
    Finished,
    Output,
    Timings,
    Tokenized,
    Usage,
)
from vfastml.engine.dispatch_requests import ImageToImageReq, OneShotReq, TextGenerationReq, TokenizeReq
from vfastml.engine.dispatch_result import GatheredReplies, TextChoice, TextGenerationResult, result_of
from vfastml.errors import InternalServerError, InvalidRequestError, RateLimitError

TEXT = TextGenerationReq(request_id="a", prompt="x")
USAGE, TIMINGS = Usage(1, 2, 0), Timings(0.1, 0.2, 0.3)


def test_deltas_become_choices_in_order() -> None:
    deltas = [
        Delta("a", 1, "c", [3], scores=[-3.0]),
        Delta("a", 0, "a", [1], scores=[-1.0]),
        Delta("a", 1, "d", [4], "stop", "END", scores=[-4.0]),
        Delta("a", 0, "b", [2], "length", scores=[-2.0]),
    ]
    result = result_of(TEXT, "m", Accepted("a", 2, [7, 8]), deltas, Finished("a", USAGE, TIMINGS))
    assert result.succeeded()
    assert (result.request_id, result.model) == ("a", "m")
    choices = [
        TextChoice(0, "ab", [1, 2], "length", None, [-1.0, -2.0]),
        TextChoice(1, "cd", [3, 4], "stop", "END", [-3.0, -4.0]),
    ]
    assert result.result == TextGenerationResult(choices, USAGE, TIMINGS, [7, 8])
    assert result.result.text == "ab"


def test_what_was_not_asked_for_is_none() -> None:
    result = result_of(TEXT, "m", None, [Delta("a", text="x", finish_reason="stop")], Finished("a"))
    assert result.result.choices == [TextChoice(0, "x", None, "stop", None)]
    assert result.result.prompt_token_ids is None


def test_tokens_without_text_are_not_nothing() -> None:
    result = result_of(TEXT, "m", None, [Delta("a", 0, "", [], "stop", scores=[])], Finished("a"))
    assert (result.result.choices[0].token_ids, result.result.choices[0].scores) == ([], [])


def test_other_answers_are_the_result() -> None:
    tokenized = Tokenized("a", [1, 2], 10)
    assert result_of(TokenizeReq(request_id="a", prompt="x"), "m", None, [], tokenized).result == tokenized
    assert result_of(OneShotReq(request_id="a", inputs=1), "m", None, [], Output("a", {"x": 1})).result == {"x": 1}
    image = ImageToImageReq(request_id="a", images=[b"x"])
    assert result_of(image, "m", None, [], Output("a", [b"y"])).result == [b"y"]


def test_failure_keeps_all_that_was_said() -> None:
    failed = Failed("a", "InvalidRequestError", "No.", "top_p", "odd", 2.0)
    error = result_of(TEXT, "m", None, [Delta("a", text="x")], failed).error
    assert isinstance(error, InvalidRequestError)
    assert (error.message, error.param, error.code, error.retry_after_s) == ("No.", "top_p", "odd", 2.0)


class NoFaceError(RateLimitError):
    """An author's own."""


class NoFaceAtAllError(NoFaceError):
    """And another one, made of it."""


def test_an_authors_own_error_arrives_as_the_nearest_of_ours() -> None:
    error = NoFaceAtAllError("No face.", param="images", code="no_face", retry_after_s=2.0)
    failed = Failed.of("a", error)
    assert failed == Failed("a", "RateLimitError", "No face.", "images", "no_face", 2.0)
    received = result_of(TEXT, "m", None, [], failed).error
    assert received is not None
    assert (type(received), received.status, received.code) == (RateLimitError, 429, "no_face")
    assert Failed.of("a", InternalServerError()).kind == "InternalServerError"


def test_answer_of_the_wrong_kind_is_a_failure() -> None:
    result = result_of(TEXT, "m", None, [], Output("a", 1))
    assert isinstance(result.error, InternalServerError)
    assert not result.succeeded()


def test_replies_are_gathered_until_the_terminal() -> None:
    gathered = GatheredReplies(TEXT, "m")
    for reply in (Accepted("a", 1, [5]), Delta("a", text="x"), Delta("a", text="y", finish_reason="stop")):
        gathered.add(reply)
        assert not gathered.ended
    assert isinstance(gathered.result().error, InternalServerError)
    gathered.add(Finished("a", USAGE))
    assert gathered.ended
    result = gathered.result().result
    assert (result.text, result.usage, result.prompt_token_ids) == ("xy", USAGE, [5])


def test_refusal_ends_without_an_answer() -> None:
    refusal = InvalidRequestError("No.")
    gathered = GatheredReplies(TEXT, "m", error=refusal)
    assert gathered.ended
    assert gathered.result().error is refusal
