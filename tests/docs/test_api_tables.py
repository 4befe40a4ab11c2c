"""The other tables of docs/api.md: endpoints, health, errors, limits, and the fields of /load."""

from __future__ import annotations

import ast
import json
from collections import Counter

import pytest
from starlette.routing import Route

from tests.docs.markdown import DOCS, Row, code_spans, section, table
from tests.docs.test_api_examples import EXAMPLES
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml import errors
from vfastml.engine.text_parameters import (
    MAX_ANSWER_TOKENS,
    MAX_BAD_WORDS,
    MAX_BIASED_TOKENS,
    MAX_LOGPROBS,
    MAX_STOP_TOKENS,
)
from vfastml.entrypoints import http_protocol, limits
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.auth import FREE_PATHS
from vfastml.entrypoints.http_errors import error_response
from vfastml.errors import VFastMLError

API = (DOCS / "api.md").read_text()
CODE = DOCS.parent / "vfastml"

ERROR_ROWS = table(section(API, "## Errors"), "Status")
NOT_OF_A_CLASS = {
    ("408", "invalid_request_error", "request_timeout"),
    ("431", "invalid_request_error", "request_too_large"),
}
"""Answered by the HTTP parser itself."""

ORDINARY_HEADERS = {"content-length", "content-type"}

ErrorRow = tuple[str, str, str | None]


def test_endpoints_are_the_routes_of_the_app() -> None:
    rows = table(section(API, "## Endpoints"), "Method")
    written = [(method, *code_spans(path)) for methods, path, _ in rows for method in methods.split(", ")]
    app = Gateway(dispatch_engine=FakeDispatchEngine()).build()
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes)
    assert Counter(written) == Counter((method, route.path) for route in routes for method in route.methods or ())


def test_health_table_has_the_free_paths() -> None:
    written = [path for row in table(section(API, "## Health"), "Path") for path in code_spans(row[0])]
    assert set(written) == FREE_PATHS
    keys = section(API, "## Keys")
    assert all(f"`{path}`" in keys for path in FREE_PATHS)


def test_load_table_names_only_what_is_there_and_all_that_is_counted() -> None:
    (answer,) = [json.loads(example.answer) for example in EXAMPLES if example.path == "/load"]
    written = {name for row in table(section(API, "## Load"), "Field") for name in code_spans(row[0])}
    server = answer["servers"][0]
    assert written <= {*answer, *server}
    assert {*answer} - {"servers"} <= written


def test_models_table_is_what_is_told_of_a_model() -> None:
    (answer,) = [json.loads(example.answer) for example in EXAMPLES if example.path == "/v1/models"]
    written = {name for row in table(section(API, "## Models"), "Field") for name in code_spans(row[0])}
    assert written == {*answer["data"][0]["vfastml"]}


def test_error_rows_are_the_error_classes_and_the_codes_given_in_their_place() -> None:
    written = {_key(row) for row in ERROR_ROWS}
    classes = {_as_row(error) for error in _error_classes()}
    assert classes <= written
    others = written - classes - NOT_OF_A_CLASS
    assert {code for _, _, code in others} == _codes_given_by_hand() - {code for _, _, code in NOT_OF_A_CLASS}
    assert {row[:2] for row in others} <= {row[:2] for row in classes}


@pytest.mark.parametrize("row", ERROR_ROWS, ids=lambda row: f"{row[0]} {row[2]}")
def test_headers_of_errors(row: Row) -> None:
    for error in _error_classes():
        if _as_row(error) == _key(row):
            assert set(error_response(error()).headers) - ORDINARY_HEADERS == set(code_spans(row[3]))


def test_limits_are_those_of_the_code() -> None:
    in_code = [value for name, value in vars(limits).items() if name.startswith("MAX_")]
    written = [int(most) for _, most in table(section(API, "## Limits"), "What")]
    of_heads = [http_protocol.MAX_HEAD_BYTES, http_protocol.MAX_HEADERS]
    of_parameters = [MAX_BIASED_TOKENS, MAX_STOP_TOKENS, MAX_BAD_WORDS, MAX_LOGPROBS, MAX_ANSWER_TOKENS]
    assert Counter(written) == Counter([*in_code, *of_heads, *of_parameters])


def _error_classes() -> list[type[VFastMLError]]:
    """Those that are raised: the two roots only stand for the others."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, VFastMLError)]
    return [one for one in found if one not in (VFastMLError, errors.UserError)]


def _as_row(error: type[VFastMLError]) -> ErrorRow:
    return str(error.status), error.type, error.default_code


def _key(row: Row) -> ErrorRow:
    status, kind, code = row[:3]
    return status, kind.strip("`"), None if code == "null" else code.strip("`")


def _codes_given_by_hand() -> set[str]:
    """The codes that are given where an error is raised, in the place of its class's own."""
    trees = [ast.parse(path.read_text()) for path in CODE.rglob("*.py")]
    keywords = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    values = [keyword.value for keyword in keywords if keyword.arg == "code"]
    return {value.value for value in values if isinstance(value, ast.Constant)}
