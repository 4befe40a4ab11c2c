"""Open WebUI asks for the models when a connection is added, with a key or without one, and lists what it finds."""

from __future__ import annotations

import pytest

from tests.clients.plain_answer import MODEL
from tests.e2e.service import Service

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-unused"}])
def test_models_are_listed_with_and_without_a_key(service: Service, headers: dict[str, str]) -> None:
    answer = service.http.get("/v1/models", headers=headers)
    assert answer.status_code == 200
    assert set(answer.json()) == {"object", "data"}
    assert answer.json()["object"] == "list"
    [model] = answer.json()["data"]
    assert (model["id"], model["object"], model["owned_by"]) == (MODEL, "model", "vfastml")
    assert isinstance(model["created"], int)
