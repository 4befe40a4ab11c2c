"""Files of API keys: TOML with everything that can be said of a key, or one key in a line. Messages name keys by their
names and never show what stands in the file, as that may be a key."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vfastml.entrypoints.keys.api_key import ApiKey, checked_key, key_of_digest, nameless_key

_MAX_BYTES = 16 << 20
_FIELDS = tuple(field.name for field in fields(ApiKey))
_OWN = ("name", "sha256", "admin")
"""What each key says for itself: there is no default."""
_DEFAULTS = tuple(name for name in _FIELDS if name not in _OWN)
_HASHED = "sha256:"


class KeyFileError(ValueError):
    """The file is not what it should be; one sentence for the operator, which names the file."""


def is_toml(path: str | Path) -> bool:
    """Whether a file of that name is read as TOML."""
    return Path(path).suffix.lower() == ".toml"


def read_keys(path: str | Path) -> tuple[ApiKey, ...]:
    """All keys of the file, of which there may be none, with their defaults filled in. Raises KeyFileError."""
    try:
        text = _read(path)
        return parse_toml(text) if is_toml(path) else _parse_lines(text)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"the key file {path} cannot be read: it is not text") from error
    except ValueError as error:
        raise KeyFileError(f"the key file {path}: {error}") from error


def parse_toml(text: str) -> tuple[ApiKey, ...]:
    """The keys of such a file's text. Raises ValueError with a sentence for the operator."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Its own message may show a part of the text.
        raise ValueError("it is not valid TOML") from error
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


def _read(path: str | Path) -> str:
    with open(path, "rb") as file:
        # Of what was opened: the name may mean another file a moment later.
        if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
            raise ValueError("every user of this machine may write it: take that away with chmod o-w")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    return content.decode()


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


def _parse_lines(text: str) -> tuple[ApiKey, ...]:
    lines = [line.strip() for line in text.splitlines()]
    keys = [_key_of_line(line) for line in lines if line and not line.startswith("#")]
    return tuple({key.sha256.lower(): key for key in keys}.values())


def _key_of_line(line: str) -> ApiKey:
    checked_key(line)
    if not line.startswith(_HASHED):
        return nameless_key(line)
    try:
        return key_of_digest(line.removeprefix(_HASHED))
    except ValueError as error:
        raise ValueError("64 hexadecimal digits come after 'sha256:'") from error
