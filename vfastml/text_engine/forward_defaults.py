"""A text server's own defaults: what holds where a request does not ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationForward
from vfastml.engine.text_parameters import check_token_bounds, checked
from vfastml.errors import InvalidRequestError

_WHOSE = "model_forward_kwargs"
_NOTHING = SamplingParams()
_SAMPLING = frozenset(SamplingParams.__struct_fields__)
_KNOWN = _SAMPLING | frozenset(TextGenerationForward.__struct_fields__) | {"n"}


@dataclass(frozen=True, slots=True)
class ForwardDefaults:
    """`sampling` for what a request's own leaves open, `n` choices where it names no number."""

    sampling: SamplingParams = _NOTHING
    n: int = 1


def forward_defaults(given: Mapping[str, Any] | TextGenerationForward | None) -> ForwardDefaults:
    """Settles a server's `model_forward_kwargs`, whose names are those of SamplingParams and TextGenerationForward, and
    `n` for num_generations. None, the whole or a value, asks for nothing; `stream` may be there, though it changes no
    answer.

    Raises InvalidRequestError, with the name, for an unknown option or a value that no request could ask for either.
    """
    options = given if isinstance(given, Mapping) else _fields_of(given)
    for name in options:
        if name not in _KNOWN:
            raise InvalidRequestError(f"{_WHOSE} has an unknown option {name!r}; known are {', '.join(sorted(_KNOWN))}")
    try:
        return _settled({name: checked(name, value) for name, value in options.items() if value is not None})
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{_WHOSE}: {error.message}", param=error.param) from error


def _settled(values: dict[str, Any]) -> ForwardDefaults:
    check_token_bounds(values.get("min_tokens"), values.get("max_tokens"))
    sampling = SamplingParams(**{name: value for name, value in values.items() if name in _SAMPLING})
    return ForwardDefaults(sampling, _num_choices(values))


def _num_choices(values: dict[str, Any]) -> int:
    asked = {values[name] for name in ("n", "num_generations") if name in values}
    if len(asked) > 1:
        raise InvalidRequestError("'n' and 'num_generations' contradict each other.", param="n")
    return asked.pop() if asked else 1


def _fields_of(forward: TextGenerationForward | None) -> dict[str, Any]:
    if forward is None:
        return {}
    return {name: getattr(forward, name) for name in forward.__struct_fields__}
