"""The items of an input: checked, and in the one form in which they are kept and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import PlainValidator

from vfastml.entrypoints.limits import MAX_CONTENT_PARTS, MAX_MESSAGES, MAX_NAME_CHARS
from vfastml.entrypoints.openai.responses.item_ids import new_item_id
from vfastml.errors import InvalidRequestError, UnsupportedError, UserError

Item = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TEXT_OF = {"input_text": "text", "output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
"""Where the parts of each type have their text."""
_IN_MESSAGES = ("input_text", "output_text", "refusal")


def checked_input(value: Any) -> list[Item]:
    """The items, each with an id; a string is a message of the user's. Raises InvalidRequestError, and UnsupportedError
    for items and parts that this server does not know."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("'input' must be a string or a list of items.", param="input")
    if len(value) > MAX_MESSAGES:
        raise InvalidRequestError(f"'input' may have at most {MAX_MESSAGES} items.", param="input")
    return [_checked(item, f"input[{position}]") for position, item in enumerate(value)]


def told_apart(items: Iterable[Item], taken: Iterable[str]) -> list[Item]:
    """The same items, with new ids where theirs are taken, or another one's of them."""
    ids = set(taken)
    apart = []
    for item in items:
        own = {**item, "id": new_item_id(item["type"])} if item["id"] in ids else item
        ids.add(own["id"])
        apart.append(own)
    return apart


Input = Annotated[list[Item], PlainValidator(checked_input, json_schema_input_type=str | list[Item])]


def _checked(item: Any, place: str) -> Item:
    if not isinstance(item, dict):
        raise InvalidRequestError(f"'{place}' must be an object.", param=place)
    kind = item.get("type") or "message"
    check = _CHECKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        place = f"{place}.type"
        raise UnsupportedError(f"'{place}' with this value is not supported by this server.", param=place)
    sent_id = item.get("id")
    is_name = isinstance(sent_id, str) and 0 < len(sent_id) <= MAX_NAME_CHARS
    return {
        "id": sent_id if is_name else new_item_id(kind),
        "type": kind,
        "status": "completed",
        **check(item, place),
    }


def _message(item: Item, place: str) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise InvalidRequestError(f"'{place}.role' must be one of {', '.join(_ROLES)}.", param=f"{place}.role")
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    return {"role": role, "content": _parts(content, f"{place}.content", _IN_MESSAGES)}


def _function_call(item: Item, place: str) -> Item:
    return {name: _string(item, name, place) for name in ("call_id", "name", "arguments")}


def _function_call_output(item: Item, place: str) -> Item:
    output = item.get("output")
    if not isinstance(output, str):
        output = _parts(output, f"{place}.output", ("input_text",))
    return {"call_id": _string(item, "call_id", place), "output": output}


def _reasoning(item: Item, place: str) -> Item:
    # Summaries and encrypted reasoning are other servers': what this one has thought is in the content.
    return {"summary": [], "content": _parts(item.get("content") or [], f"{place}.content", ("reasoning_text",))}


_CHECKS: dict[str, Callable[[Item, str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _parts(value: Any, place: str, known: tuple[str, ...]) -> list[Item]:
    if not isinstance(value, list):
        raise InvalidRequestError(f"'{place}' must be a string or a list of parts.", param=place)
    if len(value) > MAX_CONTENT_PARTS:
        raise InvalidRequestError(f"'{place}' may have at most {MAX_CONTENT_PARTS} parts.", param=place)
    return [_part(part, place, position, known) for position, part in enumerate(value)]


def _part(part: Any, place: str, position: int, known: tuple[str, ...]) -> Item:
    kind: Any = part.get("type") if isinstance(part, dict) else None
    text = part.get(_TEXT_OF[kind]) if kind in known else None
    if not isinstance(text, str):
        # Only here its place is put into words: of good parts there are many.
        raise _bad_part(part, f"{place}[{position}]", known)
    checked = {"type": kind, _TEXT_OF[kind]: text}
    return {**checked, "annotations": [], "logprobs": []} if kind == "output_text" else checked


def _bad_part(part: Any, place: str, known: tuple[str, ...]) -> UserError:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return InvalidRequestError(f"'{place}' must be an object with a 'type'.", param=place)
    if kind not in known:
        place = f"{place}.type"
        return UnsupportedError(f"'{place}' must be that of a text: other parts are not supported.", param=place)
    return _no_string(_TEXT_OF[kind], place)


def _string(item: Item, name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _no_string(name, place)
    return value


def _no_string(name: str, place: str) -> InvalidRequestError:
    return InvalidRequestError(f"'{place}.{name}' must be a string.", param=f"{place}.{name}")
