"""The text of a key file, changed so that everything else in it stays as people wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomlkit

from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.key_file import parse_toml

_HEADER = re.compile(r"\s*\[")
_KEY_HEADER = re.compile(r"\s*\[\[\s*[\"']?key[\"']?\s*\]\]")
_NOTHING = re.compile(r"\s*(#.*)?")
_BY_HAND = "it is not written as `vfastml keys` would: each key is a table [[key]] of its own; change it by hand"


def with_key(text: str, entry: Mapping[str, Any]) -> str:
    """The text with one more key at its end. Raises ValueError when it has one of that name, or is no key file."""
    names = [key.name for key in parse_toml(text)]
    if entry["name"] in names:
        raise ValueError(f"it has a key with the name {entry['name']!r} already")
    table = tomlkit.dumps({"key": [dict(entry)]})
    # At the end whatever stands before it: tomlkit would put it behind the last key, and move comments on the way.
    changed = f"{text.rstrip()}\n\n{table}".lstrip()
    if [key.name for key in _parsed_or_none(changed) or ()] != [*names, entry["name"]]:
        raise ValueError(_BY_HAND)
    return changed


def without_key(text: str, name: str) -> str:
    """The text without the key of that name; comments around it stay. Raises KeyError if there is none, ValueError when
    it is no key file."""
    keys = parse_toml(text)
    place = next((place for place, key in enumerate(keys) if key.name == name), None)
    if place is None:
        raise KeyError(name)
    lines = text.splitlines(keepends=True)
    headers = [number for number, line in enumerate(lines) if _KEY_HEADER.match(line)]
    if len(headers) != len(keys):
        raise ValueError(_BY_HAND)
    changed = _without_table(lines, headers[place])
    # What the lines looked like may not be what they mean.
    if _parsed_or_none(changed) != (*keys[:place], *keys[place + 1 :]):
        raise ValueError(_BY_HAND)
    return changed


def _without_table(lines: list[str], first: int) -> str:
    """Without the table that begins in that line, up to its last value."""
    behind = next((n for n in range(first + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
    while behind > first + 1 and _NOTHING.fullmatch(lines[behind - 1].rstrip("\r\n")):
        behind -= 1
    if behind < len(lines) and not lines[behind].strip():
        behind += 1
    return "".join(lines[:first] + lines[behind:])


def _parsed_or_none(text: str) -> tuple[ApiKey, ...] | None:
    try:
        return parse_toml(text)
    except ValueError:
        return None
