"""A JSON schema with something changed in each schema that is part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
"""Keywords that hold schemas by names."""
_VALUES = {"const", "default", "enum", "examples", "required"}
"""Keywords that hold values, not schemas."""

_INTEGER_LIMIT = 9 * 10**18
"""Nearly what 64 bits hold."""
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"}


def rewritten(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """`change` gets every schema whose own parts have been changed already. Not for schemas of unknown depth."""
    if isinstance(schema, list):
        return [rewritten(item, change) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return change({key: _keyword(key, value, change) for key, value in schema.items()})


def with_bounded_integers(schema: Any) -> Any:
    """The same schema, in which an integer without bounds has 64 bits: else a small model that has begun to write
    digits may go on for ever."""
    return rewritten(schema, _with_bounds)


def _keyword(key: str, value: Any, change: Callable[[Schema], Schema]) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {name: rewritten(schema, change) for name, schema in value.items()}
    return value if key in _VALUES else rewritten(value, change)


def _with_bounds(schema: Schema) -> Schema:
    kinds = schema.get("type")
    is_integer = kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds and "number" not in kinds)
    if not is_integer or _BOUNDS & set(schema):
        return schema
    return {**schema, "minimum": -_INTEGER_LIMIT, "maximum": _INTEGER_LIMIT}
