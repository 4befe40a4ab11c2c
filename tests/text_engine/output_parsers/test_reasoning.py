"""Reasoning is split off, however the text is cut."""

from __future__ import annotations

import pytest

from tests.text_engine.output_parsers.parsed_text import Found, found_however_cut
from vfastml.text_engine.output_parsers.plain_text import PlainText
from vfastml.text_engine.output_parsers.reasoning import REASONING, KeptReasoning, ReasoningParser, reasoning_of
from vfastml.text_engine.tools.tool_format import TOOL_FORMATS

THINK = REASONING["think"]


def parsed(text: str, *, has_begun: bool = False) -> Found:
    return found_however_cut(lambda: ReasoningParser(THINK, PlainText(), has_begun=has_begun), text)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\nLet me see.\n</think>\n\nParis.", "Let me see.", "Paris."),
        ("\n<think>a < b, </thinking> c</think>d", "a < b, </thinking> c", "d"),
        ("<think></think>Paris.", "", "Paris."),
        ("<think>\n\n</think>\n\nParis.", "", "Paris."),
        ("<think>cut short", "cut short", ""),
        ("<think>one\n\ntwo</think>", "one\n\ntwo", ""),
        ("Paris, <think>not</think> first.", "", "Paris, <think>not</think> first."),
        ("<thin ice", "", "<thin ice"),
        ("<thi", "", "<thi"),
        ("", "", ""),
    ],
)
def test_reasoning_before_the_answer(text: str, reasoning: str, answer: str) -> None:
    assert parsed(text) == Found(answer, reasoning, ())


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("Let me see.\n</think>\n\nParis.", "Let me see.", "Paris."),
        ("\n</think>Paris.", "", "Paris."),
        ("<think>again</think>Paris.", "again", "Paris."),
        ("never an end </thin", "never an end </thin", ""),
    ],
)
def test_reasoning_that_the_prompt_has_begun(text: str, reasoning: str, answer: str) -> None:
    assert parsed(text, has_begun=True) == Found(answer, reasoning, ())


def test_calls_behind_reasoning_and_none_within() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    hermes = TOOL_FORMATS["hermes"]

    def new_parser() -> ReasoningParser:
        return ReasoningParser(THINK, hermes.parser(frozenset({"now"}), max_calls=4), has_begun=False)

    text = f"<think>I might write {call}</think>\n\nWell:\n{call}"
    assert found_however_cut(new_parser, text) == Found("Well:", f"I might write {call}", (("now", "{}"),))


@pytest.mark.parametrize(
    ("text", "has_begun"),
    [("<think>\n a\n</think>\n\nb ", False), ("a </think> b", True), ("no thought", False), (" <think>cut", False)],
)
def test_reasoning_that_is_kept(text: str, has_begun: bool) -> None:
    whole = found_however_cut(lambda: KeptReasoning(THINK, PlainText(), has_begun=has_begun), text)
    assert whole == Found(text, "", ())


def test_calls_behind_reasoning_that_is_kept() -> None:
    call = '{"name": "now", "arguments": {}}'
    json_format = TOOL_FORMATS["json"]

    def new_parser() -> KeptReasoning:
        return KeptReasoning(THINK, json_format.parser(frozenset({"now"}), max_calls=4), has_begun=False)

    text = f"<think>hm</think>\n\n{call}"
    assert found_however_cut(new_parser, text) == Found("<think>hm</think>", "", (("now", "{}"),))


def test_where_the_text_is() -> None:
    parser = ReasoningParser(THINK, PlainText(), has_begun=False)
    places = []
    for piece in ("<think>", "a", "b", "</think>", "c"):
        parser.push(piece)
        places.append(parser.in_reasoning)
    assert places == [True, True, True, False, False]


def test_the_template_shows_whether_a_model_reasons() -> None:
    assert reasoning_of("{{ content.split('</think>')[-1] }}") is THINK
    assert reasoning_of("[THINK]...[/THINK]") is REASONING["mistral"]
    assert reasoning_of("<|im_start|>") is None
