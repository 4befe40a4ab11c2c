"""From the bytes of a body to a checked model, and from the first thing that is wrong to one sentence.

Bodies are decoded by msgspec, which refuses NaN, infinities, lone surrogates and absurd numbers, and then checked by
pydantic. What the client sent is never echoed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from vfastml.errors import InvalidRequestError

_MAX_PARAM_CHARS = 100
_NOT_JSON = "The body is not valid JSON."
_ECHOING_TYPES = ("union_tag_invalid", "union_tag_not_found")
"""pydantic puts a piece of the input into the messages of these."""

_M = TypeVar("_M", bound=BaseModel)


def parse_body(raw: bytes, model: type[_M]) -> _M:
    """Raises InvalidRequestError, or what a validator of the model raises."""
    try:
        return model.model_validate(_decode(raw))
    except ValidationError as error:
        raise first_problem(error.errors(include_url=False, include_context=False, include_input=False)) from None


def first_problem(problems: Sequence[Mapping[str, Any]], skip: int = 0) -> InvalidRequestError:
    """The first of pydantic's errors as ours. `skip` leading elements of its path are not part of the field's name."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return InvalidRequestError(_NOT_JSON)
    param = _path(problem["loc"][skip:])
    if param is None:
        return InvalidRequestError("The body must be a JSON object.")
    if problem["type"] == "missing":
        return InvalidRequestError(f"Missing required parameter: '{param}'.", param=param)
    return InvalidRequestError(f"Invalid '{param}': {_sentence(problem)}", param=param)


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError(_NOT_JSON) from None


def _path(location: Sequence[int | str]) -> str | None:
    """`messages[0].role`; None for the body itself. Names may be a client's own dictionary keys: cut and cleaned."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in location]
    path = "".join(steps).removeprefix(".")[:_MAX_PARAM_CHARS]
    return "".join(char for char in path if char.isprintable()) or None


def _sentence(problem: Mapping[str, Any]) -> str:
    if problem["type"] in _ECHOING_TYPES:
        return "the value is of no known kind."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return f"{message[:1].lower()}{message[1:]}."
