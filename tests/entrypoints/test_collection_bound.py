"""No list or object of a body grows without bound, and of many wrong elements one is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from tests.docs.test_api_fields import BODIES, SMALLEST
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.errors import InvalidRequestError

MANY = 100_000
_OF_NO_VALUE = ("json_schema_input_schema", "metadata", "serialization")
"""Parts of a core schema that check nothing."""


def collections(schema: Any, outer: Any = None) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every list and dict in a core schema, with the schema that it stands in."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "dict"):
            yield schema, outer
        for key, part in schema.items():
            if key not in _OF_NO_VALUE:
                yield from collections(part, schema)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from collections(part, outer)


def plain_checks(schema: Any) -> set[str]:
    """Names of the functions that are all that checks a value."""
    if isinstance(schema, list | tuple):
        return set().union(*map(plain_checks, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["function"]["function"].__name__} if schema.get("type") == "function-plain" else set()
    return own.union(*(plain_checks(part) for key, part in schema.items() if key not in _OF_NO_VALUE))


def is_measured_first(outer: Any) -> bool:
    check = outer.get("function", {}).get("function")
    return outer["type"] == "function-before" and isinstance(getattr(check, "__self__", None), AtMost)


def is_bounded(schema: dict[str, Any], outer: Any) -> bool:
    if "max_length" not in schema:
        return False
    if schema["type"] == "list":
        return schema.get("fail_fast") is True and is_measured_first(outer)
    return schema["values_schema"]["type"] == "any" or is_measured_first(outer)


@pytest.mark.rule("S4")
@pytest.mark.rule("S5")
@pytest.mark.parametrize("path", BODIES)
def test_every_list_and_object_is_bounded(path: str) -> None:
    found = list(collections(BODIES[path].__pydantic_core_schema__))
    assert found or path == "/v1/completions"
    assert [schema for schema, outer in found if not is_bounded(schema, outer)] == []


def test_the_functions_that_have_to_look_at_lengths_themselves_are_known() -> None:
    """A new one belongs into WRONG."""
    found = set().union(*(plain_checks(body.__pydantic_core_schema__) for body in BODIES.values()))
    assert found == {"_as_logit_bias", "_as_prompts", "_checked_content", "checked_input"}


class Unbounded(BaseModel):
    names: list[str]
    numbers: dict[str, int]
    inner: list[tuple[list[str], ...]] | None = None


@pytest.mark.rule("S5")
def test_what_has_no_bound_is_found() -> None:
    found = list(collections(Unbounded.__pydantic_core_schema__))
    assert [is_bounded(schema, outer) for schema, outer in found] == [False] * 4


def message(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def tool_result(content: Any) -> dict[str, Any]:
    return message([{"type": "tool_result", "tool_use_id": "1", "content": content}])


CHAT = "/v1/chat/completions"
WRONG: list[tuple[str, dict[str, Any]]] = [
    *((path, {"messages": [None]}) for path in (CHAT, "/v1/messages", "/v1/messages/count_tokens", "/tokenize")),
    *((path, {"tools": [None]}) for path in (CHAT, "/v1/messages", "/v1/responses", "/apply-template")),
    (CHAT, message([None])),
    (CHAT, {"stop": [None]}),
    (CHAT, {"stop_token_ids": [None]}),
    (CHAT, {"allowed_token_ids": [None]}),
    (CHAT, {"bad_words": [None]}),
    (CHAT, {"logit_bias": {"x": 1}}),
    (CHAT, {"documents": [None]}),
    (CHAT, {"guided_choice": [None]}),
    (CHAT, {"structured_outputs": {"choice": [None]}}),
    (CHAT, {"response_format": {"type": "structural_tag", "triggers": [None]}}),
    (CHAT, {"response_format": {"type": "structural_tag", "structures": [None]}}),
    ("/v1/completions", {"prompt": [None]}),
    ("/v1/messages", message([None])),
    ("/v1/messages", message([{"type": "text"}])),
    ("/v1/messages", tool_result([{"type": "text"}])),
    ("/v1/messages", {"system": [None]}),
    ("/v1/messages", {"stop_sequences": [None]}),
    ("/v1/responses", {"input": [None]}),
    ("/v1/responses", {"include": [None]}),
    ("/detokenize", {"tokens": [None]}),
]


def repeated(value: Any, times: int) -> Any:
    """The same, with so many of the elements of each list or object that has wrong ones."""
    if isinstance(value, list) and len(value) == 1:
        inner = repeated(value[0], times)
        return [inner] if inner != value[0] else value * times
    if isinstance(value, dict):
        grown = {key: repeated(inner, times) for key, inner in value.items()}
        return {f"{key}{i}": 1 for key in value for i in range(times)} if value == {"x": 1} else grown
    return value


@pytest.mark.rule("S5")
@pytest.mark.parametrize("times", [10, MANY])
@pytest.mark.parametrize(("path", "fields"), WRONG, ids=[f"{path}:{fields}" for path, fields in WRONG])
async def test_of_many_wrong_elements_one_is_kept(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], times: int
) -> None:
    body = {**SMALLEST[path], **repeated(fields, times)}
    assert num_problems(path, body) == 1
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert len(response.content) < 1000


@pytest.mark.rule("S5")
async def test_of_an_object_with_many_wrong_entries_none_is_looked_at(client: httpx.AsyncClient) -> None:
    body = {"input": "hi", "metadata": dict.fromkeys(map(str, range(MANY)))}
    assert num_problems("/v1/responses", body) == 1
    error = (await client.post("/v1/responses", json=body)).json()["error"]
    assert error["message"] == "Invalid 'metadata': there may be at most 16 entries."


@pytest.mark.rule("S5")
def test_allowed_tools_are_few() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools * 129}}
    with pytest.raises(InvalidRequestError, match="at most 128 allowed tools"):
        BODIES[CHAT].model_validate({"messages": "hi", "tools": tools, "tool_choice": allowed})


def num_problems(path: str, body: dict[str, Any]) -> int:
    try:
        BODIES[path].model_validate(body)
    except ValidationError as error:
        return error.error_count()
    except InvalidRequestError:
        return 1
    return 0
