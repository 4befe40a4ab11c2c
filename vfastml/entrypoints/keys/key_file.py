"""Files of API keys: TOML with everything that can be said of a key, or one key in a line. Messages name keys by their
names and never show what stands in the file, as that may be a key."""

from __future__ import annotations

import logging
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vfastml.entrypoints.keys.api_key import ApiKey, checked_key, key_of_digest, nameless_key

logger = logging.getLogger(__name__)

_MAX_BYTES = 16 << 20
_FIELDS = tuple(field.name for field in fields(ApiKey))
_OWN = ("name", "sha256", "admin")
"""What each key says for itself: there is no default."""
_DEFAULTS = tuple(name for name in _FIELDS if name not in _OWN)
_HASHED = "sha256:"
_AT_LINE = re.compile(r"\(at line (\d{1,9}), column \d{1,9}\)\Z", re.ASCII)
"""How a message of tomllib's ends."""


class KeyFileError(ValueError):
    """The file is not what it should be; one sentence for the operator, which names the file."""


def is_toml(path: str | Path) -> bool:
    """Whether a file of that name is read as TOML."""
    return Path(path).suffix.lower() == ".toml"


def _warn(sentence: str) -> None:
    logger.warning("API keys are not secret here: %s.", sentence)


def read_keys(path: str | Path, tell: Callable[[str], object] = _warn) -> tuple[ApiKey, ...]:
    """All keys of the file, of which there may be none, with their defaults filled in. Raises KeyFileError. A sentence
    for the operator goes to `tell`, the log, when others can read keys in it."""
    try:
        text, mode = _read(path)
        if is_toml(path):
            return parse_toml(text)
        lines = _lines(text)
        keys = _parse_lines(lines)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"the key file {path} cannot be read: it is not text") from error
    except ValueError as error:
        raise KeyFileError(f"the key file {path}: {error}") from error
    if mode & stat.S_IROTH and not all(line.startswith(_HASHED) for _, line in lines):
        tell(f"every user of this machine may read the keys in {path}: take that away with chmod o-r")
    return keys


def parse_toml(text: str) -> tuple[ApiKey, ...]:
    """The keys of such a file's text. Raises ValueError with a sentence for the operator."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"it is not valid TOML{_place_of(error)}") from error
    _check_known(document, ("key", "defaults"), "the file")
    entries, defaults = document.get("key", []), document.get("defaults", {})
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("a key begins with [[key]]")
    if not isinstance(defaults, dict):
        raise ValueError("defaults begin with [defaults]")
    _check_known(defaults, _DEFAULTS, "[defaults]")
    keys = tuple(_key(entry, defaults, place) for place, entry in enumerate(entries, start=1))
    _check_distinct(keys)
    return keys


def _place_of(error: Exception) -> str:
    """Where the text is wrong. Nothing else is taken of tomllib's message: it may show a part of the text."""
    message = str(error)
    if line := _AT_LINE.search(message):
        return f" in line {line[1]}"
    return " at its end" if message.endswith("(at end of document)") else ""


def _read(path: str | Path) -> tuple[str, int]:
    """Its text and its mode."""
    with open(path, "rb") as file:
        # Of what was opened: the name may mean another file a moment later.
        mode = os.fstat(file.fileno()).st_mode
        if mode & stat.S_IWOTH:
            raise ValueError("every user of this machine may write it: take that away with chmod o-w")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    return content.decode(), mode


def _key(entry: Mapping[str, Any], defaults: Mapping[str, Any], place: int) -> ApiKey:
    what = _what(entry, place)
    _check_known(entry, _FIELDS, what)
    for name in ("name", "sha256"):
        if name not in entry:
            raise ValueError(f"{what} has no {name!r}")
    if "quota_tokens" not in {*entry, *defaults} and "quota_per" not in entry:
        defaults = {name: value for name, value in defaults.items() if name != "quota_per"}
    said = {**defaults, **entry}
    if isinstance(said.get("models"), list):
        said["models"] = tuple(said["models"])
    try:
        return ApiKey(**said)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _what(entry: Mapping[str, Any], place: int) -> str:
    """A key as messages call it: by its name, if that can be shown."""
    name = entry.get("name")
    is_shown = isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) <= 64
    return f"key {name!r}" if is_shown else f"key number {place}"


def _check_known(table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    unknown = [name for name in table if name not in known]
    if unknown:
        # Quoted, so that it cannot drive a terminal, and short.
        raise ValueError(f"{what} has the unknown field {unknown[0][:64]!r}: known are {', '.join(known)}")


def _check_distinct(keys: Iterable[ApiKey]) -> None:
    names: set[str] = set()
    digests: dict[str, str] = {}
    for key in keys:
        if key.name in names:
            raise ValueError(f"two keys have the name {key.name!r}")
        digest = key.sha256.lower()
        if digest in digests:
            raise ValueError(f"keys {digests[digest]!r} and {key.name!r} have the same sha256")
        names.add(key.name)
        digests[digest] = key.name


def _lines(text: str) -> list[tuple[int, str]]:
    """Those with a key, and their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _parse_lines(lines: Iterable[tuple[int, str]]) -> tuple[ApiKey, ...]:
    keys = [_key_of_line(line, number) for number, line in lines]
    return tuple({key.sha256.lower(): key for key in keys}.values())


def _key_of_line(line: str, number: int) -> ApiKey:
    try:
        checked_key(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not line.startswith(_HASHED):
        return nameless_key(line)
    try:
        return key_of_digest(line.removeprefix(_HASHED))
    except ValueError as error:
        raise ValueError(f"line {number}: 64 hexadecimal digits come after 'sha256:'") from error
