"""Clients cannot make series up."""

from __future__ import annotations

import contextlib
import socket

import httpx

from tests.entrypoints.conftest import eventually
from tests.entrypoints.metrics.observed_service import KEY, ObservedService, observed_service


def num_series(service: ObservedService) -> int:
    return sum(len(family.samples) for family in service.scrape().values())


def send(service: ObservedService, text: bytes) -> None:
    """The answer may be lost: the connection is closed while more is coming."""
    host, port = service.running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection, contextlib.suppress(OSError):
        connection.sendall(text)
        connection.recv(1 << 16)


def storm(service: ObservedService, name: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=service.running.url, headers=headers) as client:
        for number in range(20):
            client.get(f"/{name}/{number}")
            client.get(f"/v1/models/{name}-{number}")
            client.request("PROPFIND", f"/{name}/{number}")
            client.post("/v1/completions", json={"model": f"{name}-{number}\n", "prompt": name})
            client.get("/v1/models", headers={"authorization": f"Bearer {name}{number}"})


def test_odd_paths_models_methods_and_keys() -> None:
    with observed_service() as service:
        storm(service, "oddly")
        before = num_series(service)
        storm(service, "strange")
        assert num_series(service) == before
        assert "oddly" not in service.exposition()
        assert service.value("vfastml:http_requests_total", route="other", status="404") >= 80


def test_what_no_app_answers_is_counted_too() -> None:
    with observed_service() as service:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: "
        send(service, head + b"a" * (1 << 18))
        send(service, b"no HTTP at all\r\n\r\n")
        eventually(lambda: service.value("vfastml:admission_rejections_total", reason="too_large") == 1)
        count = "vfastml:http_requests_total"
        eventually(lambda: service.value(count, route="other", method="other", status="400") == 1)
