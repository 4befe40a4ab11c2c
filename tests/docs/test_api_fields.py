"""docs/api.md has a row for every field, and each row says what the code does with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from openai.types import completion_create_params as openai_completions
from openai.types.chat import completion_create_params as openai_chat
from openai.types.responses import response_create_params

from tests.docs.markdown import DOCS, code_spans, section, table
from vfastml.engine.dispatch_requests import ToolUse
from vfastml.entrypoints.anthropic.count_request import CountTokensRequest
from vfastml.entrypoints.anthropic.messages_request import MessagesRequest
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.entrypoints.openai.chat import ChatCompletionsRequest
from vfastml.entrypoints.openai.completions import CompletionsRequest
from vfastml.entrypoints.openai.responses.responses_request import ResponsesRequest
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.openai.tokenize import DetokenizeRequest, RenderRequest, TokenizeRequest
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import UnsupportedError
from vfastml.text_engine.sampling import Sampling

API = (DOCS / "api.md").read_text()

BODIES: dict[str, type[ApiRequest]] = {
    "/v1/chat/completions": ChatCompletionsRequest,
    "/v1/completions": CompletionsRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/apply-template": RenderRequest,
}
SMALLEST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": "hi"},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": []},
    "/apply-template": {"messages": "hi"},
}
OPENAI = {
    "/v1/chat/completions": (
        openai_chat.CompletionCreateParamsNonStreaming,
        openai_chat.CompletionCreateParamsStreaming,
    ),
    "/v1/completions": (
        openai_completions.CompletionCreateParamsNonStreaming,
        openai_completions.CompletionCreateParamsStreaming,
    ),
    "/v1/responses": (
        response_create_params.ResponseCreateParamsNonStreaming,
        response_create_params.ResponseCreateParamsStreaming,
    ),
}
ANYTHING: list[Any] = [None, True, False, 0, -1.5, 10**12, "", "text", [], ["a", 1], {}, {"deep": [{"er": None}]}]
NO_NEUTRAL_VALUE = "what nobody would ask for"


@dataclass(frozen=True, slots=True)
class FieldRow:
    path: str
    name: str
    treatment: str
    values: str
    default: str
    meaning: str

    def refused_for(self, value: Any) -> str | None:
        """The field that a body with that value is refused for, because it is not supported; None: it is accepted."""
        body = {**SMALLEST[self.path], self.name: value}
        try:
            parse_body(msgspec.json.encode(body), BODIES[self.path])
        except UnsupportedError as error:
            return error.param
        return None


def _rows() -> Iterator[FieldRow]:
    for path in BODIES:
        for name, *cells in table(section(API, f"## POST {path}"), "Field"):
            yield FieldRow(path, name.strip("`"), *cells)


ROWS = list(_rows())


def rows_that_are(treatment: str) -> Any:
    chosen = [row for row in ROWS if row.treatment == treatment]
    return pytest.mark.parametrize("row", chosen, ids=[f"{row.path}:{row.name}" for row in chosen])


@pytest.mark.parametrize("path", BODIES)
def test_every_field_has_one_row_in_order(path: str) -> None:
    names = [row.name for row in ROWS if row.path == path]
    assert names == sorted(set(names))
    expected = {*BODIES[path].model_fields, *BODIES[path].unsupported}
    for params in OPENAI.get(path, ()):
        expected |= params.__required_keys__ | params.__optional_keys__
    assert expected - set(names) == set()


def test_every_row_has_a_treatment_and_a_meaning() -> None:
    assert {row.treatment for row in ROWS} == {"honoured", "refused", "ignored"}
    assert [row for row in ROWS if not row.meaning or not row.values] == []


@rows_that_are("honoured")
def test_honoured_fields_are_fields_of_the_body(row: FieldRow) -> None:
    body = BODIES[row.path]
    assert row.name in body.model_fields
    assert row.name not in body.unsupported
    assert (row.default == "required") == body.model_fields[row.name].is_required()


@rows_that_are("honoured")
def test_honoured_fields_have_the_bounds_that_are_written(row: FieldRow) -> None:
    schema = BODIES[row.path].model_json_schema()["properties"][row.name]
    written = {float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", row.values)}
    assert {float(bound) for bound in _bounds(schema)} - written == set()


@rows_that_are("honoured")
def test_honoured_fields_have_the_default_that_is_written(row: FieldRow) -> None:
    for written in code_spans(row.default):
        assert json.loads(written) == _defaults(row.path)[row.name]


@rows_that_are("refused")
def test_refused_fields_pass_at_just_the_values_that_are_written(row: FieldRow) -> None:
    body = BODIES[row.path]
    assert row.name not in body.model_fields
    neutral = [json.loads(written) for written in code_spans(row.values)]
    assert _as_json(neutral) == _as_json([None, *body.unsupported[row.name]])
    assert [row.refused_for(value) for value in neutral] == [None] * len(neutral)
    assert row.refused_for(NO_NEUTRAL_VALUE) == row.name


@rows_that_are("ignored")
def test_ignored_fields_take_anything(row: FieldRow) -> None:
    body = BODIES[row.path]
    assert row.name not in body.model_fields
    assert row.name not in body.unsupported
    assert [row.refused_for(value) for value in ANYTHING] == [None] * len(ANYTHING)


def _bounds(schema: Any) -> Iterator[float]:
    """Every bound in a field's schema as the last value that is allowed, where there is one."""
    if isinstance(schema, list):
        for part in schema:
            yield from _bounds(part)
    elif isinstance(schema, dict):
        step = 1 if schema.get("type") == "integer" else 0
        for key, value in schema.items():
            if key in ("minimum", "maximum", "maxLength", "maxItems", "maxProperties"):
                yield value
            elif key == "exclusiveMinimum":
                yield value + step
            elif key == "exclusiveMaximum":
                yield value - step
            else:
                yield from _bounds(value)


def _defaults(path: str) -> dict[str, Any]:
    """What the engine takes for fields that are left out: the request's own, else the neutral ones of sampling."""
    body: Any = parse_body(msgspec.json.encode(SMALLEST[path]), BODIES[path])
    work = body.to_work("id")
    first = msgspec.structs.asdict(work[0] if isinstance(work, list) else work)
    asked = msgspec.structs.asdict(first["sampling"]) if "sampling" in first else {}
    template = msgspec.structs.asdict(first["template"]) if "template" in first else {}
    first |= {**template, "parallel_tool_calls": ToolUse([]).parallel}
    neutral = msgspec.json.decode(msgspec.json.encode(Sampling(max_tokens=1)))
    settled = {name: value for name, value in asked.items() if value is not None}
    return {**neutral, **first, **settled, **(_reported(path) if isinstance(body, TextRequest) else {})}


def _reported(path: str) -> dict[str, Any]:
    """Defaults of what is no parameter of sampling: of beam search, once it is asked for, and of the answer's shape."""
    body: Any = parse_body(msgspec.json.encode(SMALLEST[path]), BODIES[path])
    search: Any = parse_body(msgspec.json.encode({**SMALLEST[path], "use_beam_search": True, "n": 2}), BODIES[path])
    beams = search.beams(2)
    assert beams is not None
    found = {**msgspec.structs.asdict(beams), "num_beam_groups": beams.groups, "use_beam_search": False}
    assert body.beams(2) is None
    assert found.pop("width") == 2
    found["return_tokens_as_token_ids"] = body.style()._names_ids
    found["return_timings"] = bool(body.return_timings)
    if path == "/v1/chat/completions":
        found["include_reasoning"] = body.style()._shows_reasoning
        found["separate_reasoning"] = body.to_work("id").splits_reasoning
        found["logprobs"] = body.sampling().logprobs is not None
        reporting: Any = parse_body(msgspec.json.encode({**SMALLEST[path], "logprobs": True}), BODIES[path])
        found["top_logprobs"] = reporting.sampling().logprobs
    return found


def _as_json(values: list[Any]) -> set[str]:
    return {json.dumps(value) for value in values}
