"""A JSON schema with something changed in each schema that is part of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

Schema = dict[str, Any]

_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
"""Keywords that hold schemas by names."""
_VALUES = {"const", "default", "enum", "examples", "required", "not", "if", "then", "else"}
"""Keywords that hold values, or schemas that mean something else if they are changed."""

_INTEGER_LIMIT = 9 * 10**18
"""Nearly what 64 bits hold."""
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"}


def rewritten(
    schema: Any, change: Callable[[Schema], Schema], leaves: Callable[[Schema], Collection[str]] = lambda schema: ()
) -> Any:
    """`change` gets every schema whose own parts have been changed already; those behind the keywords that `leaves`
    names stay as they are. Not for schemas of unknown depth."""
    if isinstance(schema, list):
        return [rewritten(item, change, leaves) for item in schema]
    if not isinstance(schema, dict):
        return schema
    left = {*_VALUES, *leaves(schema)}

    def part(key: str, value: Any) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: rewritten(inner, change, leaves) for name, inner in value.items()}
        return value if key in left else rewritten(value, change, leaves)

    return change({key: part(key, value) for key, value in schema.items()})


def with_bounded_integers(schema: Any) -> Any:
    """The same schema, in which an integer without bounds has 64 bits: else a small model that has begun to write
    digits may go on for ever."""
    return rewritten(schema, _with_bounds)


def _with_bounds(schema: Schema) -> Schema:
    kinds = schema.get("type")
    is_integer = kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds and "number" not in kinds)
    if not is_integer or _BOUNDS & set(schema):
        return schema
    return {**schema, "minimum": -_INTEGER_LIMIT, "maximum": _INTEGER_LIMIT}
