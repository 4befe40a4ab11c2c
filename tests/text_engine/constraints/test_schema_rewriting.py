"""Integers without bounds get some, wherever they are in a schema; nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest

from vfastml.text_engine.constraints.schema_rewriting import with_bounded_integers

MOST = 9 * 10**18
BOUNDED = {"type": "integer", "minimum": -MOST, "maximum": MOST}
ANY = {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (ANY, BOUNDED),
        ({"type": ["integer", "null"]}, {"type": ["integer", "null"], "minimum": -MOST, "maximum": MOST}),
        ({"items": ANY}, {"items": BOUNDED}),
        ({"anyOf": [ANY, {"type": "string"}]}, {"anyOf": [BOUNDED, {"type": "string"}]}),
        ({"properties": {"integer": ANY, "type": ANY}}, {"properties": {"integer": BOUNDED, "type": BOUNDED}}),
        ({"$defs": {"a": ANY}}, {"$defs": {"a": BOUNDED}}),
    ],
)
def test_integers_are_bounded(schema: Any, expected: Any) -> None:
    assert with_bounded_integers(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 0},
        {"type": "integer", "exclusiveMaximum": 5},
        {"type": "integer", "enum": [1, 2]},
        {"type": "integer", "multipleOf": 5},
        {"type": "number"},
        {"type": ["integer", "number"]},
        {"const": {"type": "integer"}},
        {"enum": [{"type": "integer"}]},
        {"default": {"type": "integer"}},
        {"type": "object", "additionalProperties": False},
        True,
        {},
    ],
)
def test_other_schemas_stay_as_they_are(schema: Any) -> None:
    assert with_bounded_integers(schema) == schema
