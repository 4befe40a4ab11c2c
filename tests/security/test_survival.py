"""S10, S12: after each hostile request the same processes answer, and what was answered tells nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Service, running
from tests.security.hostile_requests import CANARY, REQUESTS, Hostile

MOST_BYTES = 1000
TELLS = {
    "a path": re.compile(
        r"(?<![\w.:])/(?:usr|home|root|etc|tmp|opt|var|proc|lib|site-packages|work)/|\.py\b|site-packages"
    ),
    "an address": re.compile(r"0x[0-9a-fA-F]{6,}"),
    "a traceback": re.compile(r"Traceback|File \"|, line \d+"),
    "a library": re.compile(
        r"pydantic|msgspec|jinja2|llguidance|transformers|torch|starlette|zmq|(?<!Invalid)\b[A-Z]\w+(?:Error|Exception)\b"
    ),
    "what was sent": re.compile(CANARY),
}


@pytest.fixture(scope="module")
def service(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Its processes run as with `python -O`: no assert refuses anything."""
    made = Service.of_tiny_model(tmp_path_factory.mktemp("hostile"), tiny_models["llama"])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONOPTIMIZE", "1")
        with running(made) as service:
            yield service


def steps(service: Service) -> int:
    return int(service.load()["servers"][0]["load"]["steps"])


def pids(service: Service) -> list[int]:
    assert service.gateway is not None
    assert service.model_server is not None
    assert service.gateway.poll() is None
    assert service.model_server.poll() is None
    return [service.gateway.pid, service.model_server.pid]


def what_it_tells(answer: httpx.Response) -> list[str]:
    return [what for what, pattern in TELLS.items() if pattern.search(answer.text)]


@pytest.mark.rule("S12")
@pytest.mark.rule("S10")
@pytest.mark.rule("S9")
def test_the_same_processes_go_on_after_each_of_them(service: Service) -> None:
    began, wrong = pids(service), []
    for hostile in REQUESTS:
        before = steps(service)
        answer = service.http.post(hostile.path, content=hostile.body, headers={"content-type": "application/json"})
        if answer.status_code not in (200, 400, 404, 413, 429, 504):
            wrong.append((str(hostile), answer.text[:300]))
        elif answer.status_code != 200 and (len(answer.content) > MOST_BYTES or what_it_tells(answer)):
            wrong.append((str(hostile), what_it_tells(answer), answer.text[:300]))
        well = service.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 3, "ignore_eos": True})
        assert well.status_code == 200, (str(hostile), well.text)
        assert steps(service) >= before
        assert pids(service) == began, str(hostile)
    assert wrong == []
    assert steps(service) > len(REQUESTS)
    for log in ("api_server", "model_server"):
        assert "Traceback" not in service.log(log)
        told = [line for line in service.log(log).splitlines() if CANARY in line]
        assert all("access_log: POST /" in line for line in told)  # the path that was asked for, escaped


@pytest.mark.rule("S10")
@pytest.mark.parametrize("name", TELLS)
def test_what_tells_something_would_be_found(name: str) -> None:
    found = {
        "a path": "no such file: /usr/lib/python3/os",
        "an address": "<object at 0x7f00deadbeef>",
        "a traceback": 'File "x", line 5',
        "a library": "KeyError: 5",
        "what was sent": f"unknown role {CANARY}",
    }[name]
    assert TELLS[name].search(found)


@pytest.mark.rule("S12")
def test_the_corpus_has_every_route_and_no_double() -> None:
    assert len({str(hostile) for hostile in REQUESTS}) == len(REQUESTS)
    assert {hostile.path for hostile in REQUESTS} >= {
        "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize",
        "/apply-template",
    }  # fmt: skip
    assert all(isinstance(hostile, Hostile) for hostile in REQUESTS)
