"""Grammars of calls, on the built-in model's tokens: they let through what the parsers find, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.text_engine.output_parsers.parsed_text import found
from vfastml.engine.dispatch_requests import TextGenerationReq, ToolUse
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.answer_grammars import AnswerGrammars, Asked
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.prompt_encoder import PromptEncoder, load_prompt_encoder
from vfastml.text_engine.tools.offered_functions import closed, offered_functions, offered_tools
from vfastml.text_engine.tools.tool_format import TOOL_FORMATS
from vfastml.text_engine.tools.tool_grammar import ToolGrammar

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"$ref": "#/$defs/days"}},
        "required": ["city"],
        "$defs": {"days": {"type": "integer"}},
    },
}
NOW = {"name": "now"}

CALLS = {
    "hermes": ['<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>',
               '\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'],
    "mistral": ['[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}',
                ', {"name": "now", "arguments": {}}', "]"],
    "mistral_named": ['[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}', "[TOOL_CALLS]now[ARGS]{}"],
    "llama3_json": ['{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
                    '; {"name": "now", "parameters": {}}'],
    "pythonic": ['[get_weather(city="Paris", days=3)', ", now()", "]"],
    "lfm2": ['<|tool_call_start|>[get_weather(city="Paris", days=3)', ", now()", "]<|tool_call_end|>"],
    "json": ['{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}',
             '\n{"name": "now", "arguments": {}}'],
}  # fmt: skip
"""The first call, the second one, and the end."""


@pytest.fixture(scope="module")
def encoder(builtin_folder: Path) -> PromptEncoder:
    return load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)


@pytest.fixture(scope="module")
def compiler(encoder: PromptEncoder) -> ConstraintCompiler:
    assert encoder.eos_token_id is not None
    return ConstraintCompiler(encoder.tokenizer, encoder.vocab_size, (encoder.eos_token_id,))


def use(*functions: dict[str, Any], **fields: Any) -> ToolUse:
    return ToolUse([{"type": "function", "function": function} for function in functions], "required", **fields)


class Judge:
    """Says of texts whether a grammar lets them through."""

    def __init__(self, encoder: PromptEncoder, compiler: ConstraintCompiler) -> None:
        self._encoder = encoder
        self._compiler = compiler

    def takes(self, rules: str, start: str, text: str) -> bool:
        matcher = self._compiler.of_grammar(f"%llguidance {{}}\nstart: {start}\n{rules}")
        tokens = self._encoder.encode_text(text, max_tokens=10_000, add_special_tokens=False)
        if matcher._state.try_consume_tokens(tokens) < len(tokens):
            return False
        return bool(matcher._state.is_accepting())

    def takes_calls(self, name: str, tools: ToolUse, text: str, *, parallel: bool = True) -> bool:
        return self.takes(self.grammar(name, tools, parallel=parallel).calls(), "calls", text)

    def grammar(self, name: str, tools: ToolUse, *, parallel: bool = True) -> ToolGrammar:
        functions = offered_functions(tools, self._compiler)
        return ToolGrammar(TOOL_FORMATS[name], functions, self._encoder.special_id, parallel=parallel)


@pytest.fixture(scope="module")
def judge(encoder: PromptEncoder, compiler: ConstraintCompiler) -> Judge:
    return Judge(encoder, compiler)


def test_every_format_is_tried() -> None:
    assert set(CALLS) == set(TOOL_FORMATS)


@pytest.mark.parametrize("name", CALLS)
def test_calls(judge: Judge, name: str) -> None:
    first, second, *end = CALLS[name]
    one, two = "".join([first, *end]), "".join([first, second, *end])
    both = use(WEATHER, NOW)
    assert judge.takes_calls(name, both, one)
    assert judge.takes_calls(name, both, two)
    assert judge.takes_calls(name, both, one, parallel=False)
    assert not judge.takes_calls(name, both, two, parallel=False)
    assert not judge.takes_calls(name, both, f"I will. {one}")
    assert not judge.takes_calls(name, both, one.replace("get_weather", "get_whether"))
    assert not judge.takes_calls(name, both, one.replace("city", "town"))
    assert not judge.takes_calls(name, both, one.replace("3", '"three"'))
    assert not judge.takes_calls(name, both, "")


@pytest.mark.parametrize("name", CALLS)
def test_what_the_grammar_takes_the_parser_finds(name: str) -> None:
    parser = TOOL_FORMATS[name].parser(frozenset({"get_weather", "now"}), max_calls=16)
    outcome = found(parser, ["".join(CALLS[name])])
    assert (outcome.text, [called for called, _ in outcome.calls]) == ("", ["get_weather", "now"])


@pytest.mark.parametrize("name", CALLS)
def test_a_named_function_is_the_only_one(judge: Judge, name: str) -> None:
    first, _, *end = CALLS[name]
    text = "".join([first, *end])
    assert judge.takes_calls(name, use(WEATHER, NOW, name="get_weather"), text)
    assert not judge.takes_calls(name, use(WEATHER, NOW, name="now"), text)


@pytest.mark.parametrize("name", ["hermes", "mistral", "mistral_named", "lfm2"])
def test_text_with_calls_in_it(judge: Judge, name: str) -> None:
    rules = judge.grammar(name, use(WEATHER, NOW)).answer_with_calls()
    assert rules is not None
    first, second, *end = CALLS[name]
    text = "".join([first, second, *end])
    for answer in ("Hello.", text, f"Let me look.\n{text}", f"{text}\nDone."):
        assert judge.takes(rules, "answer_with_calls", answer), answer
    assert not judge.takes(rules, "answer_with_calls", f"Let me look.\n{text.replace('city', 'town')}")


@pytest.mark.parametrize("name", ["llama3_json", "pythonic", "json"])
def test_calls_that_look_like_text_cannot_be_told_from_it(judge: Judge, name: str) -> None:
    assert judge.grammar(name, use(NOW)).answer_with_calls() is None


@pytest.mark.parametrize(
    ("arguments", "is_taken"),
    [
        ('a=1, b="x", c=true', True),
        ('a=1, c=null', True),
        ("a=1", True),
        ('b="x"', False),
        ("c=true, a=1", False),
        ("a=1, ", False),
        ("", False),
    ],
)  # fmt: skip
def test_keyword_arguments(judge: Judge, arguments: str, is_taken: bool) -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": ["boolean", "null"]}}
    function = {"name": "f", "parameters": {"type": "object", "properties": properties, "required": ["a"]}}
    assert judge.takes_calls("pythonic", use(function), f"[f({arguments})]") == is_taken


def test_keyword_arguments_that_are_all_optional(judge: Judge) -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    function = {"name": "f", "parameters": {"type": "object", "properties": properties}}
    for arguments in ("", "a=1", "b=2", "a=1, b=2"):
        assert judge.takes_calls("pythonic", use(function), f"[f({arguments})]"), arguments


def test_special_tokens_stand_by_their_ids(compiler: ConstraintCompiler) -> None:
    functions = offered_functions(use(NOW), compiler)
    grammar = ToolGrammar(TOOL_FORMATS["mistral"], functions, {"[TOOL_CALLS]": 5}.get, parallel=True)
    assert "<[5]>" in grammar.calls()
    assert "TOOL_CALLS" not in grammar.calls()
    answer = grammar.answer_with_calls()
    assert answer is not None
    assert "TAG_TEXT <[5]>" in answer


# -- what arguments a function takes


def test_objects_have_no_properties_but_those_that_are_listed() -> None:
    schema = {
        "properties": {
            "properties": {"type": "string"},
            "inner": {"type": "array", "items": {"properties": {"a": {"default": {"properties": {}}}}}},
            "open": {"properties": {}, "additionalProperties": True},
            "whole": {"allOf": [{"properties": {"a": {}}}], "properties": {}},
        },
        "$defs": {"d": {"properties": {}}},
        "required": ["inner"],
    }
    assert closed(schema) == {
        "properties": {
            "properties": {"type": "string"},
            "inner": {
                "type": "array",
                "items": {"properties": {"a": {"default": {"properties": {}}}}, "additionalProperties": False},
            },
            "open": {"properties": {}, "additionalProperties": True},
            "whole": {"allOf": [{"properties": {"a": {}}}], "properties": {}},
        },
        "$defs": {"d": {"properties": {}, "additionalProperties": False}},
        "required": ["inner"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_none(compiler: ConstraintCompiler, judge: Judge) -> None:
    assert judge.takes_calls("json", use(NOW), '{"name": "now", "arguments": {}}')
    assert not judge.takes_calls("json", use(NOW), '{"name": "now", "arguments": {"a": 1}}')


def test_a_schema_that_cannot_be_kept_takes_any_object(judge: Judge) -> None:
    odd = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}}
    assert judge.takes_calls("json", use(odd), '{"name": "f", "arguments": {"a": 1, "b": 2}}')


def test_a_strict_function_whose_schema_cannot_be_kept_is_refused(compiler: ConstraintCompiler) -> None:
    parameters = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    with pytest.raises(InvalidRequestError, match="strict function") as refused:
        offered_functions(use({"name": "f", "parameters": parameters, "strict": True}), compiler)
    assert refused.value.param == "tools"


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        _nested(2000),
        {"enum": [str(number) for number in range(70_000)]},
        {"description": "x" * (300 << 10)},
        {"properties": {f"p{number}": {} for number in range(257)}},
        {"anyOf": [{} for _ in range(3001)]},
    ],
    ids=["nested", "enum", "long", "properties", "alternatives"],
)
def test_schemas_beyond_the_bounds_are_refused(schema: dict[str, Any]) -> None:
    tools = use({"name": "f", "parameters": schema})
    with pytest.raises(InvalidRequestError) as refused:
        offered_tools(TextGenerationReq(request_id="r", messages="hi", tool_use=tools))
    assert refused.value.param == "tools"


# -- forms in which the compiler, or Python, would not have them


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object"},
        {"anyOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}]},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
    ],
)
def test_keyword_arguments_that_are_not_listed(judge: Judge, parameters: dict[str, Any]) -> None:
    tools = use({"name": "f", "parameters": parameters})
    assert judge.takes_calls("pythonic", tools, '[f(a="x", b=[1, {"c": null}])]')
    assert judge.takes_calls("pythonic", tools, "[f()]")


def test_keyword_arguments_by_reference(judge: Judge) -> None:
    definition = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tools = use({"name": "f", "parameters": {"$ref": "#/$defs/x", "$defs": {"x": definition}}})
    assert judge.takes_calls("pythonic", tools, "[f(a=1)]")
    assert not judge.takes_calls("pythonic", tools, "[f()]")


def test_every_branch_of_all_of_counts(judge: Judge) -> None:
    branches = [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}]
    tools = use({"name": "f", "parameters": {"type": "object", "allOf": branches}})
    assert judge.takes_calls("json", tools, '{"name": "f", "arguments": {"a": "x", "b": "y"}}')


@pytest.mark.parametrize("name", ["get-weather", "from", "1st", "a.b"])
@pytest.mark.parametrize("tool_format", ["pythonic", "lfm2", "mistral_named", "hermes"])
def test_names_that_are_not_python_s(judge: Judge, tool_format: str, name: str) -> None:
    parameters = {"type": "object", "properties": {"from": {"type": "string"}, "first-name": {"type": "string"}}}
    tools = use({"name": name, "parameters": parameters})
    form = TOOL_FORMATS[tool_format]
    arguments = '{"from": "a", "first-name": "b"}' if form.arguments_are_json else 'from="a", first-name="b"'
    text = f"{form.opening}{form.before}{name}{form.middle}{arguments}{form.after}{form.closing}"
    assert judge.takes_calls(tool_format, tools, text)
    outcome = found(form.parser(frozenset({name}), max_calls=16), [text])
    assert (outcome.text, outcome.calls) == ("", ((name, '{"from": "a", "first-name": "b"}'),))


def test_tools_that_are_too_much_together_lose_their_schemas_not_their_guarantee(
    encoder: PromptEncoder, compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_one = compiler.of_grammar

    def of_grammar(grammar: str) -> Any:
        if "city" in grammar:
            raise InvalidRequestError("too large", param="structured_outputs")
        return compile_one(grammar)

    monkeypatch.setattr(compiler, "of_grammar", of_grammar)
    grammars = AnswerGrammars(TOOL_FORMATS["hermes"], encoder.special_id, compiler)
    matcher: Any = grammars.matcher(Asked(use(WEATHER, NOW)))
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"town": 1}}\n</tool_call>'
    tokens = encoder.encode_text(text, max_tokens=1000, add_special_tokens=False)
    assert matcher._state.try_consume_tokens(tokens) == len(tokens)
    strict = use({**WEATHER, "strict": True})
    with pytest.raises(InvalidRequestError) as refused:
        grammars.matcher(Asked(strict))
    assert refused.value.param == "tools"
    assert grammars.matcher(Asked(ToolUse(strict.tools, "auto"))) is None


def test_calls_that_a_template_cannot_render_are_not_several(
    encoder: PromptEncoder, compiler: ConstraintCompiler
) -> None:
    grammars = AnswerGrammars(TOOL_FORMATS["llama3_json"], encoder.special_id, compiler)
    matcher: Any = grammars.matcher(Asked(use(NOW)))
    one = '{"name": "now", "parameters": {}}'
    tokens = encoder.encode_text(f"{one}; {one}", max_tokens=1000, add_special_tokens=False)
    assert matcher._state.try_consume_tokens(tokens) < len(tokens)
