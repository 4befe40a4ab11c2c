"""Deltas for somebody who does not keep up: fewer and longer ones, that say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from vfastml.engine.dispatch_replies import Delta, ToolCallPiece

_T = TypeVar("_T")


def merged(deltas: Sequence[Delta]) -> Delta:
    """One delta in the place of these, which are of one choice and in order."""
    return msgspec.structs.replace(
        deltas[-1],
        text="".join([delta.text for delta in deltas]),
        token_ids=_joined([delta.token_ids for delta in deltas]),
        scores=_joined([delta.scores for delta in deltas]),
        logprobs=_joined([delta.logprobs for delta in deltas]),
        prompt_logprobs=_joined([delta.prompt_logprobs for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        tool_calls=_joined_calls([delta.tool_calls for delta in deltas]),
        num_tokens=sum([delta.num_tokens for delta in deltas]),
    )


def merged_by_choice(deltas: Iterable[Delta]) -> list[Delta]:
    """One delta for each choice of one request, in order of their first."""
    of_choices: dict[int, list[Delta]] = {}
    for delta in deltas:
        of_choices.setdefault(delta.index, []).append(delta)
    return [merged(of_choice) for of_choice in of_choices.values()]


def _joined(parts: Iterable[list[_T] | None]) -> list[_T] | None:
    given = [part for part in parts if part is not None]
    return [item for part in given for item in part] if given else None


def _joined_calls(parts: Iterable[list[ToolCallPiece] | None]) -> list[ToolCallPiece] | None:
    """One piece for each call."""
    of_calls: dict[int, list[ToolCallPiece]] = {}
    for piece in _joined(parts) or ():
        of_calls.setdefault(piece.index, []).append(piece)
    return [_joined_call(pieces) for pieces in of_calls.values()] or None


def _joined_call(pieces: list[ToolCallPiece]) -> ToolCallPiece:
    arguments = "".join([piece.arguments for piece in pieces])
    return msgspec.structs.replace(pieces[0], arguments=arguments)
