"""What a GET asks for behind the question mark."""

from __future__ import annotations

from collections.abc import Mapping

from vfastml.errors import InvalidRequestError

Query = Mapping[str, str]


def one_of(query: Query, name: str, values: tuple[str, ...]) -> str:
    """The first of the values where there is none. Raises InvalidRequestError for another one."""
    value = query.get(name, values[0])
    if value not in values:
        raise InvalidRequestError(f"'{name}' must be one of {', '.join(values)}.", param=name)
    return value


def whole_number(query: Query, name: str, default: int, least: int, most: int) -> int:
    """Raises InvalidRequestError for what is no number between the two."""
    text = query.get(name)
    if text is None:
        return default
    # Long ones would take their time to be read.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    if not is_number or not least <= int(text) <= most:
        raise InvalidRequestError(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return int(text)
