"""Calls are found in every format, however the text is cut; what is no call stays text."""

from __future__ import annotations

import pytest

from tests.text_engine.output_parsers.parsed_text import Found, found, found_however_cut
from vfastml.text_engine.tools.tool_format import TOOL_FORMATS

NAMES = frozenset({"get_weather", "now", "note"})
PARIS = ("get_weather", '{"city": "Paris", "days": 3}')
NOW = ("now", "{}")

TWO_CALLS = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
    '{"name": "now", "arguments": {}}]',
    "mistral_named": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}[TOOL_CALLS]now[ARGS]{}',
    "llama3_json": '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}; '
    '{"name": "now", "parameters": {}}',
    "pythonic": '[get_weather(city="Paris", days=3), now()]',
    "lfm2": "<|tool_call_start|>[get_weather(city='Paris', days=3), now()]<|tool_call_end|>",
    "json": '[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, {"name": "now", "arguments": {}}]',
}
CROOKED = '{"text":"a } b ] \\" c \\\\","n":[1,{"x":null}]}'
MARKED = ["hermes", "mistral", "mistral_named", "lfm2"]
ANSWERS = [
    "Hello.",
    "  Two lines,\n\nand an end  ",
    "1 < 2 and {a: [1]}",
    '{"key": [1, {"a": "}"}]}',
    "[1, 2]",
    "{",
    "[",
    " \n",
]


def parsed(name: str, text: str, max_calls: int = 16) -> Found:
    return found_however_cut(lambda: TOOL_FORMATS[name].parser(NAMES, max_calls=max_calls), text)


def test_every_format_is_tried() -> None:
    assert set(TWO_CALLS) == set(TOOL_FORMATS)


@pytest.mark.parametrize("name", TWO_CALLS)
def test_two_calls(name: str) -> None:
    assert parsed(name, TWO_CALLS[name]) == Found("", "", (PARIS, NOW))


@pytest.mark.parametrize("name", TWO_CALLS)
def test_white_space_around_calls_is_no_answer(name: str) -> None:
    assert parsed(name, f"\n {TWO_CALLS[name]} \n\n") == Found("", "", (PARIS, NOW))


@pytest.mark.parametrize("name", MARKED)
def test_text_before_calls(name: str) -> None:
    text = f"Let me look.\nIt is 1 < 2.\n\n{TWO_CALLS[name]}\n"
    assert parsed(name, text) == Found("Let me look.\nIt is 1 < 2.", "", (PARIS, NOW))


@pytest.mark.parametrize("name", MARKED)
def test_text_behind_calls(name: str) -> None:
    outcome = parsed(name, f"{TWO_CALLS[name]}\nThat is all.")
    assert (outcome.text.strip(), outcome.calls) == ("That is all.", (PARIS, NOW))


@pytest.mark.parametrize("text", ANSWERS)
@pytest.mark.parametrize("name", TWO_CALLS)
def test_answers_stay_as_they_are(name: str, text: str) -> None:
    assert parsed(name, text) == Found(text, "", ())


@pytest.mark.parametrize("name", TWO_CALLS)
def test_more_calls_than_wanted_are_left_out(name: str) -> None:
    assert parsed(name, TWO_CALLS[name], max_calls=1) == Found("", "", (PARIS,))


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama3_json", "json", "mistral_named"])
def test_arguments_come_as_they_are_written(name: str) -> None:
    parser = TOOL_FORMATS[name].parser(NAMES, max_calls=16)
    pieces = [piece for char in TWO_CALLS[name] for piece in parser.push(char).tool_calls]
    of_first = [piece.arguments for piece in pieces if piece.index == 0]
    assert of_first[0] == ""
    assert of_first[1:] == list(PARIS[1])


@pytest.mark.parametrize("name", TWO_CALLS)
def test_a_call_that_is_cut_short_keeps_what_it_has(name: str) -> None:
    for length in range(len(TWO_CALLS[name])):
        parser = TOOL_FORMATS[name].parser(NAMES, max_calls=16)
        outcome = found(parser, [TWO_CALLS[name][:length]])
        for (called, arguments), whole in zip(outcome.calls, (PARIS, NOW), strict=False):
            assert called == whole[0]
            assert whole[1].startswith(arguments)


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        ("hermes", f'<tool_call>{{"name":"note","arguments":{CROOKED}}}</tool_call>', CROOKED),
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "note"}</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>{"id": 7, "name": "note", "arguments": {"a": 1}, "x": ["}"]}</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>{"name": "note", "arguments": "{\\"a\\": 1}"}</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>{"name": "note", "arguments": null}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "note"}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "note", "arguments": "no object"}</tool_call>', "{}"),
        ("hermes", '<tool_call>\n{"name": "note", "parameters": {"a": 1}}\n', '{"a": 1}'),
        ("llama3_json", '<|python_tag|>{"name": "note", "parameters": {"a": 1}}', '{"a": 1}'),
        ("llama3_json", '{"type": "function", "name": "note", "parameters": {"a": 1}}', '{"a": 1}'),
        ("mistral_named", '[TOOL_CALLS]note[CALL_ID]abc[ARGS] {"a": 1}', '{"a": 1}'),
        ("pythonic", "[note(a=[1, (2, 3)], b={'c': None}, d='it\\'s (not] over', e=-1.5, f=true)]",
         '{"a": [1, [2, 3]], "b": {"c": null}, "d": "it\'s (not] over", "e": -1.5, "f": true}'),
        ("json", '\n{"name": "note", "arguments": {"a": "ü"}}', '{"a": "ü"}'),
    ],
)  # fmt: skip
def test_what_models_write(name: str, text: str, arguments: str) -> None:
    assert parsed(name, text) == Found("", "", (("note", arguments),))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("json", '{"name": "Paris", "population": 2000000}'),
        ("json", '{"name": ["note"], "arguments": {}}'),
        ("json", '{"arguments": {"a": 1}}'),
        ("llama3_json", '{"name": "unknown", "parameters": {}}'),
        ("llama3_json", '{name: "note"}'),
        ("pythonic", "[unknown(a=1)]"),
        ("pythonic", "[note(a=__import__('os'))]"),
        ("pythonic", "[note(1)]"),
        ("pythonic", "[see the note (below)]"),
        ("hermes", "<tool_call>no object"),
        ("hermes", '<tool_call>\n["note"]\n</tool_call>'),
        ("hermes", "The tag <tool_call> begins a call."),
        ("mistral_named", "[TOOL_CALLS]" + "x" * 300),
    ],
)
def test_what_turns_out_to_be_no_call_is_text(name: str, text: str) -> None:
    assert parsed(name, text) == Found(text, "", ())


@pytest.mark.parametrize(
    ("name", "text", "behind"),
    [
        ("mistral", '[TOOL_CALLS] [{"name": "now", "arguments": {}}]\n\n[Note: x] done', "[Note: x] done"),
        ("json", '{"name": "now", "arguments": {}}; [x] done', "[x] done"),
        ("pythonic", "[now()] [x] done", "[x] done"),
        ("hermes", '<tool_call>{"name": "now", "arguments": {}}</tool_call>\n[x]', "[x]"),
    ],
)
def test_brackets_behind_calls_are_text(name: str, text: str, behind: str) -> None:
    outcome = parsed(name, text)
    assert (outcome.text.strip(), outcome.calls) == (behind, (NOW,))


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "note", "arguments": {"a": 1}, "arguments": {"b": 1}}', '{"a": 1}'),
        ('{"name": "note", "name": "now", "arguments": {}}', "{}"),
        ('{"name": "note", ]', "{}"),
    ],
)
def test_odd_objects_make_one_whole_value(text: str, arguments: str) -> None:
    outcome = parsed("hermes", f"<tool_call>{text}</tool_call>")
    assert outcome.calls == (("note", arguments),)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ('"\\ud83d\\ude00"', '{"a": "\U0001f600"}'),
        ('"\\ud83d"', '{"a": "\ufffd"}'),
    ],
)
def test_python_s_escapes(value: str, arguments: str) -> None:
    assert parsed("pythonic", f"[note(a={value})]").calls == (("note", arguments),)


@pytest.mark.parametrize("arguments", ["a=1e999", "**{'a': 1}", "a", "a b=1", "=1", "a=1,,b=2"])
def test_what_python_would_not_call_is_text(arguments: str) -> None:
    assert parsed("pythonic", f"[note({arguments})]") == Found(f"[note({arguments})]", "", ())


def test_a_long_name_is_one_however_it_is_cut() -> None:
    for length in (190, 200, 201, 210):
        text = f"[TOOL_CALLS]{'x' * length}[ARGS]{{}}"
        assert bool(parsed("mistral_named", text).calls) == (length <= 200)


@pytest.mark.parametrize("name", TWO_CALLS)
def test_blank_lines_come_as_they_are(name: str) -> None:
    """Only a little white space waits for what may come behind it."""
    parser = TOOL_FORMATS[name].parser(NAMES, max_calls=16)
    given = "".join(parser.push(char).text for char in "a" + "\n" * 500)
    assert len(given) > 400
    assert parsed(name, "a" + " " * 500) == Found("a" + " " * 500, "", ())
    assert parsed(name, " " * 500) == Found(" " * 500, "", ())


def test_a_marked_call_of_an_unknown_function_is_a_call() -> None:
    text = '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'
    assert parsed("hermes", text) == Found("", "", (("unknown", "{}"),))


def test_ids_are_what_each_template_takes() -> None:
    for name, tool_format in TOOL_FORMATS.items():
        made = {tool_format.new_id() for _ in range(50)}
        assert len(made) == 50
        if name.startswith("mistral"):
            assert all(len(one) == 9 and one.isalnum() for one in made)
        else:
            assert all(one.startswith("call_") for one in made)
