"""What keeps a text to calls of the functions that are offered, with arguments that they take, in Lark's form as
llguidance has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vfastml.text_engine.constraints.grammars import JSON_OPTIONS
from vfastml.text_engine.tools.offered_functions import OfferedFunction
from vfastml.text_engine.tools.tool_format import ToolFormat

MAX_CALLS = 16
"""In one answer. A small model that may go on calling does."""

SpecialId = Callable[[str], int | None]
"""The id of a special token, by its text. Such a token stands in a grammar by its id, as it has no text there."""


class ToolGrammar:
    """Rules for one request's calls: `calls`, and `answer_with_calls` where the model may also say something else."""

    def __init__(
        self, tool_format: ToolFormat, functions: Sequence[OfferedFunction], special_id: SpecialId, *, parallel: bool
    ) -> None:
        self._format = tool_format
        self._functions = functions
        self._most = MAX_CALLS if parallel else 1
        self._special_id = special_id

    def calls(self) -> str:
        """One call or more, and nothing else."""
        return "\n".join([f"calls: {self._all_calls('')}", *self._function_rules()])

    def answer_with_calls(self) -> str | None:
        """Text in which whatever begins like a call is one; None for a format whose calls look like text."""
        marker = self._leading_marker()
        if marker is None:
            return None
        special = self._special_id(marker)
        start = f"TAG_TEXT <[{special}]>" if special is not None else "call_text"
        rules = [
            f"answer_with_calls: (call_start {self._all_calls(marker)}){'*' if self._most > 1 else '?'} end_text",
            f"call_start: {start}",
            "end_text: TAG_TEXT",
            "TAG_TEXT: /(.|\\n)*/",
        ]
        if special is None:
            rules.append(f"call_text[lazy]: TAG_TEXT {json.dumps(marker)}")
        return "\n".join([*rules, *self._function_rules()])

    def _leading_marker(self) -> str | None:
        first = self._format.opening or self._format.before
        return next((marker for marker in self._format.markers if first.startswith(marker)), None)

    def _all_calls(self, marker: str) -> str:
        """An expression for all of them; `marker` has been read."""
        form = self._format
        opening, before = form.opening, form.before
        if marker:
            opening, before = (opening.removeprefix(marker), before) if opening else ("", before.removeprefix(marker))
        more = f"({self._text(form.between + form.before)} function){{0,{self._most - 1}}}" if self._most > 1 else ""
        return f"{self._text(opening + before)} function {more} {self._text(form.closing)}"

    def _function_rules(self) -> Iterator[str]:
        yield f"function: {' | '.join(f'function_{number}' for number in range(len(self._functions)))}"
        for number, function in enumerate(self._functions):
            if self._format.arguments_are_json:
                arguments = _json_rule(function.arguments)
            else:
                arguments = f"keywords_{number}_0_first"
                yield from _keyword_rules(f"keywords_{number}", function.arguments)
            head, tail = self._text(function.name + self._format.middle), self._text(self._format.after)
            yield f"function_{number}: {head} {arguments} {tail}"

    def _text(self, text: str) -> str:
        """An expression for exactly this text."""
        for marker in (*self._format.markers, *self._format.ends, self._format.middle):
            special = self._special_id(marker) if marker in text else None
            if special is not None:
                before, _, after = text.partition(marker)
                return f"{self._text(before)} <[{special}]> {self._text(after)}"
        return json.dumps(text) if text else ""


def _json_rule(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def _keyword_rules(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """Keyword arguments in the order of their description. Each may be followed by any later one; `_first` are the
    rules of those that have no comma before them."""
    definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    listed = _listed(schema)
    if listed is None:
        yield f'{name}_0_first: ({name}_any (", " {name}_any)*)?'
        yield f"{name}_any: /[A-Za-z_][A-Za-z0-9_]{{0,63}}=/ {_json_rule({})}"
        return
    required = set(listed.get("required", ()))
    for number, (key, value) in enumerate(listed["properties"].items()):
        rest = f"{name}_{number + 1}"
        argument = f"{name}_{number}_argument"
        described = value if isinstance(value, dict) else {}
        yield f"{argument}: {json.dumps(f'{key}=')} {_json_rule({**described, **definitions})} {rest}"
        skipped = "" if key in required else f" | {rest}"
        yield f'{name}_{number}: ", " {argument}{skipped}'
        yield f"{name}_{number}_first: {argument}{skipped and f' | {rest}_first'}"
    yield f'{name}_{len(listed["properties"])}: ""'
    yield f'{name}_{len(listed["properties"])}_first: ""'


def _listed(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema, or that which it refers to, that lists all properties; None if there is none."""
    for key in ("$defs", "definitions"):
        reference = str(schema.get("$ref", ""))
        if reference.startswith(f"#/{key}/"):
            schema = {**schema.get(key, {}).get(reference.removeprefix(f"#/{key}/"), {}), key: schema[key]}
    is_all = schema.get("additionalProperties") is False and isinstance(schema.get("properties"), dict)
    return schema if is_all else None
