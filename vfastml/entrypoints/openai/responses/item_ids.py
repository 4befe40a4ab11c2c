"""Names for responses and for the items in them."""

from __future__ import annotations

from uuid import uuid4

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def new_response_id() -> str:
    """`resp_` and 32 random hexadecimal digits: it opens the response to whoever has the same key."""
    return f"resp_{uuid4().hex}"


def new_item_id(kind: str) -> str:
    """For an item of that `type`."""
    return f"{_PREFIXES[kind]}_{uuid4().hex}"
