"""Log probabilities in the shapes of the chat API, of the completions API, and of vLLM's for prompts."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import Any

from vfastml.engine.dispatch_replies import PlaceLogprobs, TokenLogprob

Body = dict[str, Any]

_Utf8 = getincrementaldecoder("utf-8")


def chat_logprobs(places: Iterable[PlaceLogprobs], *, names_ids: bool) -> Body:
    """One entry for each token, with its bytes: a token's text alone need not be whole characters."""
    return {"content": [_chat_place(place, names_ids) for place in places], "refusal": None}


class CompletionLogprobs:
    """Of the growing text of one choice. `offset`s count the characters of the tokens before."""

    def __init__(self, *, names_ids: bool) -> None:
        self._names_ids = names_ids
        self._decoder = _Utf8("replace")
        self._offset = 0

    def push(self, places: Sequence[PlaceLogprobs]) -> Body:
        """The next tokens'."""
        tokens, values, tops, offsets = [], [], [], []
        for place in places:
            tokens.append(self._name(place.chosen))
            values.append(place.chosen.logprob if place.rank else None)
            tops.append(self._top(place) if place.rank else None)
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(place.chosen.token))
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _top(self, place: PlaceLogprobs) -> dict[str, float] | None:
        """The chosen one is among them, as whoever compares it with the best one expects."""
        found: dict[str, float] = {}
        for one in (*place.top, place.chosen):
            found.setdefault(self._name(one), one.logprob)
        return found if place.top else None

    def _name(self, one: TokenLogprob) -> str:
        return f"token_id:{one.token_id}" if self._names_ids else _unambiguous(one.token)


def prompt_logprobs(places: Iterable[PlaceLogprobs]) -> list[dict[str, Body] | None]:
    """For each token of a prompt, by token id: itself and its alternatives; nothing for the first."""
    return [_by_id(place) if place.rank else None for place in places]


def _by_id(place: PlaceLogprobs) -> dict[str, Body]:
    ranked = [(rank, one) for rank, one in enumerate(place.top, 1)]
    return {
        str(one.token_id): {"logprob": one.logprob, "rank": rank, "decoded_token": _text(one.token)}
        for rank, one in [*ranked, (place.rank, place.chosen)]
    }


def _chat_place(place: PlaceLogprobs, names_ids: bool) -> Body:
    top = [_chat_token(one, names_ids) for one in place.top]
    return {**_chat_token(place.chosen, names_ids), "top_logprobs": top}


def _chat_token(one: TokenLogprob, names_ids: bool) -> Body:
    token = f"token_id:{one.token_id}" if names_ids else _text(one.token)
    return {"token": token, "logprob": one.logprob, "bytes": list(one.token)}


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _unambiguous(token: bytes) -> str:
    """Pieces of characters are spelled, or many tokens would have the same name."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
