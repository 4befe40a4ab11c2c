"""The functions of a request, each with the arguments that the model is kept to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfastml.engine.dispatch_requests import Constraint, TextGenerationReq, ToolUse
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.grammars import MAX_SCHEMA, check_schema
from vfastml.text_engine.constraints.schema_rewriting import Schema, rewritten, with_bounded_integers

_MAX_PARTS = 3000
"""Of all tools together: see grammars.py. Each of many functions is quicker to compile than one of all their parts."""
_NONE: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
_ANY: Schema = {"type": "object"}


@dataclass(frozen=True, slots=True)
class OfferedFunction:
    """`arguments` is the schema of an object."""

    name: str
    arguments: Schema
    is_strict: bool = False

    def with_any_arguments(self) -> OfferedFunction:
        """The same with any object, unless it is strict."""
        return self if self.is_strict else OfferedFunction(self.name, _ANY)


def offered_tools(request: TextGenerationReq) -> ToolUse | None:
    """What the model is told of; None where it must not call anything. Raises InvalidRequestError for what is no
    function."""
    tools = request.tool_use
    if tools is None or tools.choice == "none" or not tools.tools:
        return None
    if request.messages is None:
        raise InvalidRequestError("Tools are for chats only.", param="tools")
    check_functions(tools.tools)
    if tools.name is not None and tools.name not in (tool["function"]["name"] for tool in tools.tools):
        raise InvalidRequestError("'tool_choice' must name a tool that is offered.", param="tool_choice")
    return tools


def check_functions(tools: Sequence[dict[str, Any]]) -> None:
    """Raises InvalidRequestError for a tool that is no function with a name, and for more than the bounds allow."""
    _check_sizes(tools)
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequestError("Each of 'tools' must have a 'function' with a 'name'.", param="tools")


def offered_functions(tools: ToolUse, compiler: ConstraintCompiler) -> list[OfferedFunction]:
    """Those that may be called. Arguments whose schema the compiler does not take may be any object, unless their
    function is `strict`: then raises InvalidRequestError."""
    functions = [tool["function"] for tool in tools.tools]
    if tools.name is not None:
        functions = [function for function in functions if function["name"] == tools.name]
    return [
        OfferedFunction(function["name"], _arguments(function, compiler), bool(function.get("strict")))
        for function in functions
    ]


def _arguments(function: dict[str, Any], compiler: ConstraintCompiler) -> Schema:
    schema = function.get("parameters")
    if schema is None:
        return _NONE
    schema = {"type": "object", **with_bounded_integers(closed(schema))}
    try:
        compiler.matcher(Constraint("json_schema", json.dumps(schema)))
    except InvalidRequestError as error:
        if function.get("strict"):
            raise InvalidRequestError(f"A strict function cannot be used: {error.message}", param="tools") from error
        return _ANY
    return schema


def _check_sizes(tools: Sequence[Any]) -> None:
    try:
        check_schema(tools, max_parts=_MAX_PARTS)
    except InvalidRequestError as error:
        message = error.message.replace("The schema has", "'tools' have").replace("The schema is", "'tools' are")
        raise InvalidRequestError(message, param="tools") from error
    size = len(json.dumps(tools))
    if size > MAX_SCHEMA:
        raise InvalidRequestError(f"'tools' may have {MAX_SCHEMA} bytes.", param="tools")


def closed(schema: Any) -> Any:
    """The same schema, in which an object that lists its properties has no others: nobody who offers a function means
    that any argument goes. Schemas that say more of one object stay open."""
    return rewritten(schema, _without_others, _said_elsewhere)


def _without_others(schema: Schema) -> Schema:
    if isinstance(schema.get("properties"), dict) and not _OPENS & set(schema):
        return {**schema, "additionalProperties": False}
    return schema


def _said_elsewhere(schema: Schema) -> tuple[str, ...]:
    """Keywords whose schemas are not all that is said of their object."""
    return ("allOf", "anyOf", "oneOf") if "properties" in schema else ("allOf",)


_OPENS = {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
"""Keywords that say more of an object's properties."""
