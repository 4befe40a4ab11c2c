"""The forms in which models write tool calls."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vfastml.text_engine.output_parsers.call_reader import CallReader
from vfastml.text_engine.output_parsers.named_call import NamedCall
from vfastml.text_engine.output_parsers.object_call import ObjectCall
from vfastml.text_engine.output_parsers.python_call import PythonCall
from vfastml.text_engine.output_parsers.tool_call_parser import CallSyntax, ToolCallParser

_ALPHANUMERIC = string.ascii_letters + string.digits

Accepts = Callable[[str], bool]


def _long_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _short_id() -> str:
    """Mistral's templates take no other."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """What calls look like: `opening`, calls with `between` between them, `closing`. A call is `before`, the function's
    name, `middle`, its arguments, `after`. The first string of it that is in `markers` shows that a call begins."""

    name: str
    shown_by: str
    """What a chat template has in it that asks for this form."""
    reader: Callable[[Accepts], CallReader]
    before: str
    middle: str
    after: str
    opening: str = ""
    between: str = ""
    closing: str = ""
    markers: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bare: str = ""
    not_with: tuple[str, ...] = ()
    """What shows, in such a template, that it asks for something else all the same."""
    takes_several: bool = True
    """Its templates can render an answer with more than one call."""
    takes_any_name: bool = True
    """A call is known as one even if it names no function that is offered."""
    arguments_are_json: bool = True
    """Else they are Python's keyword arguments."""
    new_id: Callable[[], str] = _long_id

    def parser(self, names: frozenset[str], *, max_calls: int) -> ToolCallParser:
        """For one text. `names` are those of the functions that are offered."""

        def accepts(name: str) -> bool:
            return name in names or (self.takes_any_name and bool(name))

        syntax = CallSyntax(
            new_reader=lambda: self.reader(accepts),
            begins_call=self._begins_call,
            markers=self.markers,
            ends=self.ends,
            bare=self.bare,
        )
        return ToolCallParser(syntax, self.new_id, max_calls=max_calls)

    def is_other(self, template: str) -> bool:
        """The template only looks as if it asked for this form."""
        return any(sign in template for sign in self.not_with)

    def _begins_call(self, char: str) -> bool:
        return char == "{" if self.reader is ObjectCall else char.isalnum() or char in "_.-"


_HERMES = ToolFormat(
    name="hermes",
    shown_by="<tool_call>",
    not_with=("<function=", "<arg_key>"),
    reader=ObjectCall,
    before='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    after="}\n</tool_call>",
    between="\n",
    markers=("<tool_call>",),
    ends=("</tool_call>",),
)
_MISTRAL_LIST = ToolFormat(
    name="mistral",
    shown_by="[TOOL_CALLS]",
    reader=ObjectCall,
    opening="[TOOL_CALLS] [",
    before='{"name": "',
    middle='", "arguments": ',
    after="}",
    between=", ",
    closing="]",
    markers=("[TOOL_CALLS]",),
    new_id=_short_id,
)
_MISTRAL_NAMED = ToolFormat(
    name="mistral_named",
    shown_by="[ARGS]",
    reader=lambda accepts: NamedCall(accepts, "[ARGS]"),
    before="[TOOL_CALLS]",
    middle="[ARGS]",
    after="",
    markers=("[TOOL_CALLS]",),
    new_id=_short_id,
)
_LLAMA3 = ToolFormat(
    name="llama3_json",
    shown_by='"parameters": dictionary',
    reader=ObjectCall,
    before='{"name": "',
    middle='", "parameters": ',
    after="}",
    between="; ",
    markers=("<|python_tag|>",),
    bare="{",
    takes_several=False,
    takes_any_name=False,
)
_PYTHONIC = ToolFormat(
    name="pythonic",
    shown_by="[func_name1(",
    reader=PythonCall,
    opening="[",
    before="",
    middle="(",
    after=")",
    between=", ",
    closing="]",
    ends=("]",),
    bare="[",
    takes_any_name=False,
    arguments_are_json=False,
)
_LFM2 = ToolFormat(
    name="lfm2",
    shown_by="<|tool_call_start|>",
    reader=PythonCall,
    opening="<|tool_call_start|>[",
    before="",
    middle="(",
    after=")",
    between=", ",
    closing="]<|tool_call_end|>",
    markers=("<|tool_call_start|>",),
    ends=("<|tool_call_end|>",),
    arguments_are_json=False,
)
_JSON = ToolFormat(
    name="json",
    shown_by="",
    reader=ObjectCall,
    before='{"name": "',
    middle='", "arguments": ',
    after="}",
    between="\n",
    bare="{[",
    takes_any_name=False,
)

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    tool_format.name: tool_format
    for tool_format in (_MISTRAL_NAMED, _MISTRAL_LIST, _LFM2, _HERMES, _LLAMA3, _PYTHONIC, _JSON)
}
"""By the names that an operator may give (`--tool-call-parser`); those that another one's sign is a part of come
first."""


def tool_format_of(template: str) -> ToolFormat:
    """What the chat template asks for; plain JSON where it asks for nothing that is known."""
    return next(found for found in TOOL_FORMATS.values() if found.shown_by in template and not found.is_other(template))
