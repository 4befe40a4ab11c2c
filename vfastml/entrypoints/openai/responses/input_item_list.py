"""The list that GET /v1/responses/{id}/input_items answers, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from vfastml.entrypoints.openai.responses.kept_items import id_of
from vfastml.entrypoints.openai.responses.query_fields import Query, one_of, whole_number
from vfastml.errors import InvalidRequestError

_DEFAULT_LIMIT = 20
_MOST = 100


def item_page(items: Sequence[msgspec.Raw], query: Query) -> dict[str, Any]:
    """The page that `order` (the last item first, unless `asc`), `after` (an item's id) and `limit` ask for. Raises
    InvalidRequestError."""
    ordered = list(items) if one_of(query, "order", ("desc", "asc")) == "asc" else list(reversed(items))
    rest = ordered[_begin(ordered, query.get("after")) :]
    page = rest[: whole_number(query, "limit", _DEFAULT_LIMIT, 1, _MOST)]
    return {
        "object": "list",
        "data": page,
        "first_id": id_of(page[0]) if page else None,
        "last_id": id_of(page[-1]) if page else None,
        "has_more": len(rest) > len(page),
    }


def _begin(items: Sequence[msgspec.Raw], after: str | None) -> int:
    if after is None:
        return 0
    for position, item in enumerate(items, 1):
        if id_of(item) == after:
            return position
    raise InvalidRequestError("'after' is no id of an item in this list.", param="after")
