"""The gateway against its own description: whatever is generated from /openapi.json, right or wrong, gets an answer."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.fuzz.http_reply import HttpReply
from vfastml.entrypoints.api_server import Gateway

SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", Gateway(dispatch_engine=FakeDispatchEngine()).build())
OPERATIONS = {operation.label: operation for operation in (result.ok() for result in SCHEMA.get_all_operations())}
WITH_BODY = [
    "POST /detokenize",
    "POST /tokenize",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
]
light = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_route_is_described() -> None:
    assert set(WITH_BODY) <= set(OPERATIONS)
    assert {"GET /v1/models", "GET /v1/models/{id}", "GET /load", "GET /readyz"} <= set(OPERATIONS)


def statuses(label: str, mode: schemathesis.GenerationMode) -> Counter[int]:
    """Of the answers to cases of that kind, each of which has to be a sound one."""
    found: Counter[int] = Counter()

    @light
    @given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:
        response = case.call()
        found[response.status_code] += 1
        problem = HttpReply(response.status_code, bytearray(response.content), is_whole=True).problem()
        assert problem is None, (problem, response.text)

    call()
    return found


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_what_fits_the_description(label: str) -> None:
    found = statuses(label, schemathesis.GenerationMode.POSITIVE)
    assert set(found) <= {200, 400, 404}
    # A few rules cannot be told in a schema, such as how many choices there may be in all.
    assert 200 in found or "{id}" in label


@pytest.mark.parametrize("label", WITH_BODY)
def test_what_does_not_fit_the_description(label: str) -> None:
    found = statuses(label, schemathesis.GenerationMode.NEGATIVE)
    assert set(found) <= {200, 400}
    assert found[400] > found[200]
