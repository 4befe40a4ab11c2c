"""The format of tool calls is seen in the chat template."""

from __future__ import annotations

import pytest

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.chat_dialect import chat_dialect
from vfastml.text_engine.tools.tool_format import tool_format_of


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("return a json object within <tool_call></tool_call> XML tags", "hermes"),
        ("'[TOOL_CALLS] [' + tool_calls", "mistral"),
        ("'[TOOL_CALLS]' + name + '[ARGS]' + arguments", "mistral_named"),
        ('Respond in the format {"name": function name, "parameters": dictionary of argument name', "llama3_json"),
        ("[func_name1(params_name1=params_value1, ...), func_name2(params)]", "pythonic"),
        ("List of tools: <|tool_list_start|> ... <|tool_call_start|>", "lfm2"),
        ("{% for message in messages %}", "json"),
        ("<tool_call>\n<function=name>\n<parameter=a>", "json"),
        ("", "json"),
    ],
)
def test_format_of_a_template(part: str, name: str) -> None:
    assert tool_format_of(part).name == name
    assert chat_dialect(part).tools.name == name


def test_the_operator_has_the_last_word() -> None:
    dialect = chat_dialect("<tool_call> </think>", "pythonic", "none")
    assert (dialect.tools.name, dialect.reasoning) == ("pythonic", None)


@pytest.mark.parametrize("names", [("xml", "auto"), ("auto", "xml")])
def test_unknown_names_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="'xml' is not known: use auto"):
        chat_dialect("", *names)
