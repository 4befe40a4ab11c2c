"""The list that GET /v1/responses/{id}/input_items answers, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vfastml.entrypoints.openai.responses.input_items import Item
from vfastml.errors import InvalidRequestError

_DEFAULT_LIMIT = 20
_LIMITS = range(1, 101)
_LONGEST_LIMIT = 3


def item_page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """The page that `order` (the last item first, unless `asc`), `after` (an item's id) and `limit` ask for. Raises
    InvalidRequestError."""
    ordered = list(items) if _order(query) == "asc" else list(reversed(items))
    rest = ordered[_begin(ordered, query.get("after")) :]
    page = rest[: _limit(query)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(rest) > len(page),
    }


def _order(query: Mapping[str, str]) -> str:
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequestError("'order' must be 'asc' or 'desc'.", param="order")
    return order


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(_DEFAULT_LIMIT))
    # Whole numbers of any length would be computed first.
    number = int(text) if len(text) <= _LONGEST_LIMIT and text.isascii() and text.isdecimal() else 0
    if number not in _LIMITS:
        raise InvalidRequestError("'limit' must be a whole number from 1 to 100.", param="limit")
    return number


def _begin(items: Sequence[Item], after: str | None) -> int:
    if after is None:
        return 0
    for position, item in enumerate(items, 1):
        if item["id"] == after:
            return position
    raise InvalidRequestError("'after' is no id of an item in this list.", param="after")
