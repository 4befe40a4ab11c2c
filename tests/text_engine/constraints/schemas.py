"""JSON schemas of all kinds, for texts that can come to an end."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_SHORT: Schema = {"type": "string", "maxLength": 12}


def _closed(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list_of(items: Schema, most: int = 3) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _small(number: str, least: float, most: float) -> Schema:
    return {"type": number, "minimum": least, "maximum": most}


PERSON = _closed(name=_SHORT, age=_small("integer", 0, 150))

SCHEMAS: list[Schema] = [
    PERSON,
    _closed(people=_list_of(PERSON)),
    _closed(colour={"enum": ["red", "green", "blue"]}),
    _closed(city={"enum": ["Zürich", "東京", "São Paulo", "🚀", 'a "quoted" name', "back\\slash"]}),
    _closed(nothing={"type": "null"}, flag={"type": "boolean"}),
    _closed(value=_small("number", -10, 10)),
    _closed(value={"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 9}),
    _closed(const={"const": {"deep": [1, "two", None]}}),
    _closed(choice={"anyOf": [PERSON, {"type": "null"}, _small("integer", 1, 3)]}),
    _closed(pair={"type": "array", "prefixItems": [_SHORT, {"type": "boolean"}], "items": False, "minItems": 2}),
    _closed(date={"type": "string", "format": "date"}),
    _closed(address={"type": "string", "format": "ipv4"}),
    _closed(id={"type": "string", "format": "uuid"}),
    _closed(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"}),
    _closed(matrix=_list_of(_list_of(_small("integer", 0, 9)))),
    {"$defs": {"leaf": PERSON}, **_closed(left={"$ref": "#/$defs/leaf"}, right={"$ref": "#/$defs/leaf"})},
    {
        "$defs": {"node": _closed(value=_small("integer", 0, 9), next={"anyOf": [{"type": "null"}]})},
        **_closed(head={"$ref": "#/$defs/node"}),
    },
    {"type": "object", "properties": {"a": _SHORT, "b": _small("integer", 0, 9)}, "additionalProperties": False},
    {"type": "object", "properties": {"a": _SHORT}, "required": ["a"], "maxProperties": 1},
    _closed(**{"naïve key": _SHORT, "ключ": _small("integer", 0, 9), "with space": {"type": "boolean"}}),
    _closed(level1=_closed(level2=_closed(level3=_closed(level4=_closed(value={"type": "boolean"}))))),
    _list_of({"enum": [1, 2.5, "three", None, True]}, 4),
    {"enum": ["just", "one", "of these"]},
    _small("integer", -3, 3),
    {"type": "boolean"},
    {"type": "string", "minLength": 3, "maxLength": 8},
    _closed(both={"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}),
    _closed(kind={"const": "circle"}, radius=_small("number", 0, 5)),
    _closed(types={"type": ["boolean", "null"]}),
    _closed(items={"type": "array", "items": PERSON, "maxItems": 2}, total=_small("integer", 0, 99)),
]
