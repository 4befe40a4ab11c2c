"""A page of the items that a response was given, taken from what is kept."""

from __future__ import annotations

import msgspec

from vfastml.entrypoints.openai.responses.input_item_list import item_page
from vfastml.entrypoints.openai.responses.kept_items import items_of

NEVER_READ = msgspec.Raw(b"no JSON")


def test_nothing_is_decoded_that_is_not_on_the_page() -> None:
    first, second = items_of([b'[{"id":"a","n":1}]', b'[{"id":"b","n":2}]'])
    page = item_page([NEVER_READ, NEVER_READ, first, second], {"limit": "2"})
    assert msgspec.json.decode(msgspec.json.encode(page)) == {
        "object": "list",
        "data": [{"id": "b", "n": 2}, {"id": "a", "n": 1}],
        "first_id": "b",
        "last_id": "a",
        "has_more": True,
    }
