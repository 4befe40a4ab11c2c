"""How many texts a request gets, and out of how many."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vfastml.engine.dispatch_requests import BeamSearch, TextGenerationReq
from vfastml.errors import InvalidRequestError

_MOST_LENGTH_PENALTY = 10.0
_MOST_DIVERSITY_PENALTY = 100.0


@dataclass(frozen=True, slots=True)
class NumChoices:
    """`num_generated` are made; all of them are answered, or the `num_answers` best."""

    num_generated: int
    num_answers: int | None = None


def num_choices(request: TextGenerationReq, default: int, max_num_seqs: int) -> NumChoices:
    """Raises InvalidRequestError, with the name of the field at fault."""
    n = default if request.n is None else request.n
    check_between("n", n, max_num_seqs)
    if request.beams is not None:
        _check_beams(request.beams, n, max_num_seqs)
        if request.best_of not in (None, n):
            raise InvalidRequestError("'best_of' cannot be used with beam search: ask for more beams.", param="best_of")
        return NumChoices(n)
    if request.best_of is None or request.best_of == n:
        return NumChoices(n)
    check_between("best_of", request.best_of, max_num_seqs)
    if request.best_of < n:
        raise InvalidRequestError("'best_of' must not be smaller than 'n'.", param="best_of")
    if request.stream:
        raise InvalidRequestError("'best_of' cannot be used with 'stream'.", param="best_of")
    return NumChoices(request.best_of, n)


def check_between(name: str, count: int, most: int) -> None:
    """Raises InvalidRequestError for less than 1 and more than `most`."""
    if not 1 <= count <= most:
        raise InvalidRequestError(f"'{name}' must be between 1 and {most}.", param=name)


def _check_beams(beams: BeamSearch, n: int, max_num_seqs: int) -> None:
    if not 2 <= beams.width <= max_num_seqs:
        raise InvalidRequestError(f"'beam_width' must be between 2 and {max_num_seqs}.", param="beam_width")
    if n > beams.width:
        raise InvalidRequestError("'n' must not be larger than 'beam_width'.", param="n")
    if beams.groups < 1 or beams.width % beams.groups:
        raise InvalidRequestError("'num_beam_groups' must divide 'beam_width'.", param="num_beam_groups")
    _check_size("length_penalty", beams.length_penalty, -_MOST_LENGTH_PENALTY, _MOST_LENGTH_PENALTY)
    _check_size("diversity_penalty", beams.diversity_penalty, 0.0, _MOST_DIVERSITY_PENALTY)


def _check_size(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise InvalidRequestError(f"'{name}' must be a number between {least:g} and {most:g}.", param=name)
