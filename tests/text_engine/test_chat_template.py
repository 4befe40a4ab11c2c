"""What reaches a chat template: options, tools, calls and their results, reasoning."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_requests import TemplateOptions
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.chat_template import ChatTemplate
from vfastml.text_engine.tools.tool_format import TOOL_FORMATS

TOOL = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
TURNS = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
QWEN = (
    "{% if tools %}TOOLS{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}[{{ m.role }}|"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls %}<tool_call>{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}</tool_call>{% endfor %}]{% endfor %}"
    "{% if add_generation_prompt %}>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


def template(text: str | None, tool_format: str = "json") -> ChatTemplate:
    return ChatTemplate(byte_tokenizer(), text, TOOL_FORMATS[tool_format])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


# -- options


def test_generation_prompt() -> None:
    plain = template(TURNS)
    assert plain.render([user("a")], TemplateOptions()) == "[user|a]>"
    assert plain.render([user("a")], TemplateOptions(add_generation_prompt=False)) == "[user|a]"


def test_the_last_message_goes_on() -> None:
    messages = [user("a"), {"role": "assistant", "content": "Well"}]
    options = TemplateOptions(add_generation_prompt=False, continue_final_message=True)
    assert template(TURNS).render(messages, options) == "[user|a][assistant|Well"
    assert template(None).render(messages, options) == "user: a\nassistant: Well"


def test_arguments_that_the_template_knows() -> None:
    asked = TemplateOptions(kwargs={"enable_thinking": False})
    assert template(QWEN).render([user("a")], asked).endswith("><think></think>")


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", ["enable_thinking", "messages", "tokenize", "chat_template", "m", "range", ""])
def test_arguments_that_it_does_not_know_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        template(TURNS).render([user("a")], TemplateOptions(kwargs={name: True}))
    assert refused.value.param == "chat_template_kwargs"


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", ["bos_token", "raise_exception", "strftime_now", "range", "namespace"])
def test_what_a_template_relies_on_is_no_argument(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        template(f"{{{{ {name} }}}}").render([user("a")], TemplateOptions(kwargs={name: "x"}))


def test_tools_are_no_argument() -> None:
    with pytest.raises(InvalidRequestError):
        template(QWEN).render([user("a")], TemplateOptions(kwargs={"tools": []}))


@pytest.mark.parametrize(("effort", "end"), [("none", "><think></think>"), ("high", ">"), (None, ">")])
def test_effort_is_a_hint(effort: str | None, end: str) -> None:
    options = TemplateOptions(reasoning_effort=effort)
    assert template(QWEN).render([user("a")], options) == f"[user|a]{end}"
    assert template(TURNS).render([user("a")], options) == "[user|a]>"
    assert template("{{ reasoning_effort }}").render([user("a")], options) == (effort or "")


def test_what_is_asked_for_by_name_goes_before_the_hint() -> None:
    options = TemplateOptions(kwargs={"enable_thinking": True}, reasoning_effort="none")
    assert template(QWEN).render([user("a")], options) == "[user|a]>"


def test_documents() -> None:
    options = TemplateOptions(documents=[{"text": "d"}])
    assert template("{{ documents[0].text }}").render([user("a")], options) == "d"
    with pytest.raises(UnsupportedError) as refused:
        template(TURNS).render([user("a")], options)
    assert refused.value.param == "documents"


def test_a_template_with_tags_of_transformers_own() -> None:
    known = template("{% generation %}{{ mood }}{% endgeneration %}")
    assert known.render([user("a")], TemplateOptions(kwargs={"mood": "x"})) == "x"


@pytest.mark.parametrize("text", ["{% for x in %}", "{{ messages", "{% nonsense %}"])
def test_what_is_no_template_is_found_at_the_start(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="The chat template has an error in line 1: "):
        template(text).check()


def test_a_template_that_wants_other_messages_is_one() -> None:
    template("{{ raise_exception('begin with a system message') }}").check()
    template("{{ messages[0].content + 1 }}").check()


# -- tools that the template knows


def test_tools_reach_it() -> None:
    text = template(QWEN).render([user("a")], TemplateOptions(), [TOOL])
    assert text.startswith('TOOLS{"type": "function", "function": {"name": "now"')
    assert "TOOLS" not in template(QWEN).render([user("a")], TemplateOptions())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"zone": "UTC"}', '{"zone": "UTC"}'),
        ({"zone": "UTC"}, '{"zone": "UTC"}'),
        ("", "{}"),
        (None, "{}"),
        ("null", "{}"),
        ("not JSON", '"not JSON"'),
        ("[1]", '"[1]"'),
    ],
)
def test_arguments_of_calls_are_objects(arguments: Any, shown: str) -> None:
    call = {**CALL, "function": {"name": "now", "arguments": arguments}}
    messages = [user("a"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = template(QWEN).render(messages, TemplateOptions())
    assert text == f"[user|a][assistant|<tool_call>now{shown}</tool_call>]>"


def test_a_template_that_wants_them_as_text_gets_them_so() -> None:
    wants_text = (
        "{% for m in messages %}{{ m.role }}{% if m.tool_calls %}{{ '=' + m.tool_calls[0].function.arguments }}"
    )
    wants_text += "{% endif %}{% endfor %}{{ tools }}"
    messages = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    assert template(wants_text).render(messages, TemplateOptions()) == 'assistant={"zone": "UTC"}None'


@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_are_none(calls: Any) -> None:
    shows = "{{ 'tool_calls' in messages[0] }}{{ tools }}"
    messages = [{"role": "assistant", "content": "a", "tool_calls": calls}]
    assert template(shows).render(messages, TemplateOptions()) == "FalseNone"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_earlier_reasoning_has_both_names(name: str) -> None:
    messages = [{"role": "assistant", "content": "b", name: "a"}]
    assert template(QWEN).render(messages, TemplateOptions()) == "[assistant|<think>a</think>b]>"


# -- tools that the template does not know


def test_they_are_described_in_the_systems_message() -> None:
    text = template(TURNS).render([user("a")], TemplateOptions(), [TOOL])
    assert text.startswith('[system|You can call these functions:\n{"name": "now"')
    assert '{"name": "NAME", "arguments": ARGUMENTS}' in text
    assert text.endswith("[user|a]>")


def test_and_added_to_one_that_is_there() -> None:
    messages = [{"role": "system", "content": "Be kind."}, user("a")]
    text = template(TURNS).render(messages, TemplateOptions(), [TOOL])
    assert text.startswith("[system|Be kind.\n\nYou can call")
    assert text.count("[system|") == 1


@pytest.mark.parametrize(
    ("tool_format", "call"),
    [
        ("json", '{"name": "now", "arguments": {"zone": "UTC"}}'),
        ("hermes", '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>'),
        ("pythonic", '[now(zone="UTC")]'),
        ("mistral", '[TOOL_CALLS] [{"name": "now", "arguments": {"zone": "UTC"}}]'),
    ],
)
def test_calls_and_results_are_plain_messages(tool_format: str, call: str) -> None:
    messages = [
        user("a"),
        {"role": "assistant", "content": "Well.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {"role": "function", "name": "now", "content": "one"},
    ]
    text = template(TURNS, tool_format).render(messages, TemplateOptions())
    results = "[user|The result of the function:\nnoon][user|The result of now:\none]"
    assert text == f"[user|a][assistant|Well.\n{call}]{results}>"


@pytest.mark.parametrize("calls", ["x", [1], [{}], [{"function": {"name": "f"}}], [{"function": []}], {"a": 1}])
@pytest.mark.parametrize("text", [TURNS, QWEN, None])
def test_malformed_calls_are_rendered_or_refused(text: str | None, calls: Any) -> None:
    messages = [{"role": "assistant", "content": "", "tool_calls": calls}]
    with contextlib.suppress(InvalidRequestError):
        template(text).render(messages, TemplateOptions())


def test_the_callers_messages_are_not_written_to() -> None:
    messages = [user("a"), {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "r"}]
    before = repr(messages)
    for text in (TURNS, QWEN):
        template(text).render(messages, TemplateOptions(), [TOOL])
    assert repr(messages) == before
