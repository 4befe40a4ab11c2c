"""A request's constraint as llguidance takes it, within bounds: what they let through compiles in about a second at
worst."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from llguidance import LLMatcher, StructTag
from llguidance.gbnf_to_lark import any_to_lark

from vfastml.engine.dispatch_requests import Constraint
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints.schema_rewriting import with_bounded_integers

PARAM = "structured_outputs"
"""Where a constraint usually comes from."""

MAX_SCHEMA = 256 << 10
_MAX_GRAMMAR = 32 << 10
_MAX_REGEX = 16 << 10
_MAX_ENTRIES = 10_000
"""Of all `enum`s of a schema, and choices."""
_MAX_DEPTH = 64
_MAX_PROPERTIES = 256
"""Of one object. What takes time to compile, and at some length breaks the compiler, are long lists of them."""
MAX_PARTS = 2000
"""Properties, alternatives and other entries of a schema, but for the values of `enum`s."""
_MAX_TAGS = 128
JSON_OPTIONS: Any = {"whitespace_flexible": True, "whitespace_pattern": " ?"}
"""At most one space between two tokens of JSON: a small model that may write white space writes nothing else."""
_DOUBLE_REPEAT = re.compile(r"\((?:\?:)?(?:\\.|\[[^\]]*\]|[^()\\|])[+*]\)[+*]")
_REGEX_META = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")


def grammar_of(constraint: Constraint) -> str:
    """Raises InvalidRequestError for one that is malformed or beyond the bounds."""
    return _GRAMMARS[constraint.kind](constraint.text)


def _json_object(text: str) -> str:
    return _of_schema({"type": "object"})


def _json_schema(text: str) -> str:
    schema = _parsed(text, "schema", MAX_SCHEMA)
    return _of_schema({} if schema is True else schema)


def _of_schema(schema: Any) -> str:
    if not isinstance(schema, dict):
        raise _wrong("The schema must be an object.")
    check_schema(schema)
    bounded = json.dumps(with_bounded_integers(schema))
    return LLMatcher.grammar_from_json_schema(bounded, overrides=JSON_OPTIONS)


def _regex(text: str) -> str:
    _check_size(text, "regex", _MAX_REGEX)
    if _DOUBLE_REPEAT.search(text):
        raise _wrong("The regex repeats a repeat, as in (a+)+: write a+.")
    return LLMatcher.grammar_from_regex(text)


def _choice(text: str) -> str:
    choices = _parsed(text, "list of choices", MAX_SCHEMA)
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str) and one for one in choices):
        raise _wrong("The choices must be a list of strings, none of them empty.")
    if len(choices) > _MAX_ENTRIES:
        raise _wrong(f"There may be at most {_MAX_ENTRIES} choices.")
    return LLMatcher.grammar_from_regex("|".join(_REGEX_META.sub(r"\\\g<0>", one) for one in choices))


def _grammar(text: str) -> str:
    _check_size(text, "grammar", _MAX_GRAMMAR)
    try:
        return LLMatcher.grammar_from_lark(any_to_lark(text))
    except Exception as error:
        raise _wrong("The grammar is neither EBNF nor Lark's form.") from error


def _structural_tag(text: str) -> str:
    """Free text with parts that begin with a trigger, as vLLM has it: {"structures": [{"begin", "schema", "end"}],
    "triggers": [...]}."""
    given = _parsed(text, "structural tag", MAX_SCHEMA)
    try:
        structures, triggers = given["structures"], given["triggers"]
        if not 1 <= len(structures) <= _MAX_TAGS:
            raise _wrong(f"There must be 1 to {_MAX_TAGS} structures.")
        tags = [_tag(one, triggers) for one in structures]
        return StructTag.to_grammar(tags, assume_special=False)
    except (KeyError, TypeError, ValueError, AssertionError, StopIteration) as error:
        raise _wrong("The structural tag must have 'structures' (begin, schema, end) and 'triggers'.") from error


def _tag(structure: Any, triggers: Any) -> StructTag:
    schema = structure["schema"]
    check_schema(schema)
    begin, end = str(structure["begin"]), str(structure["end"])
    trigger = next(str(one) for one in triggers if one and begin.startswith(one))
    return StructTag(trigger=trigger, begin=begin, grammar={**schema, "x-guidance": JSON_OPTIONS}, end=end)


def _parsed(text: str, what: str, most: int) -> Any:
    _check_size(text, what, most)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"The {what} is no JSON.") from error


def _check_size(text: str, what: str, most: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _wrong(f"The {what} has half a character.") from error
    if not 1 <= size <= most:
        raise _wrong(f"The {what} must have 1 to {most} bytes.")


def check_schema(schema: Any, *, max_parts: int = MAX_PARTS) -> None:
    """Raises InvalidRequestError for one beyond the bounds."""
    num_entries = num_parts = 0
    for depth, value in _walk(schema):
        if depth > _MAX_DEPTH:
            raise _wrong(f"The schema is nested more than {_MAX_DEPTH} deep.")
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("enum"), list):
            num_entries += len(value["enum"])
        properties = value.get("properties")
        if isinstance(properties, dict) and len(properties) > _MAX_PROPERTIES:
            raise _wrong(f"The schema has an object of more than {_MAX_PROPERTIES} properties.")
        num_parts += sum(len(part) for key, part in value.items() if key != "enum" and isinstance(part, dict | list))
        if num_entries > _MAX_ENTRIES:
            raise _wrong(f"The schema has more than {_MAX_ENTRIES} enum values.")
        if num_parts > max_parts:
            raise _wrong(f"The schema has more than {max_parts} parts.")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value with its depth; without recursion, which hostile nesting would break."""
    waiting = [(0, value)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(depth + 1, one) for one in inner]


def _wrong(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=PARAM)


_GRAMMARS: dict[str, Callable[[str], str]] = {
    "json_object": _json_object,
    "json_schema": _json_schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "structural_tag": _structural_tag,
}
