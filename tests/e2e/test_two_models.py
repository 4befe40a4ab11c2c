"""One gateway in front of two model servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import READY_S, Service, wait_until


@pytest.fixture
def pair(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    """A service of `llama`, whose gateway also knows the model server of a second one, `qwen2`."""
    services: list[Service] = []
    try:
        for name in ("qwen2", "llama"):
            folder = tmp_path / name
            folder.mkdir()
            arguments = ["--model-uri", str(tiny_models[name]), "--kv-cache-memory", "20MB"]
            extra = [f"--model-server=tcp://127.0.0.1:{services[0].rpc_port}"] if services else []
            services.append(Service(folder, arguments, extra))
            services[-1].start_model_server()
        services[1].start_gateway()
        services[1].wait_ready()
        yield services[1], services[0]
    finally:
        for service in services:
            service.stop()


def test_each_model_is_reached_by_name_and_lost_alone(pair: tuple[Service, Service]) -> None:
    service, other = pair
    wait_until(lambda: len(list(service.openai().models.list())) == 2, READY_S, "both models")
    for model in ("llama", "qwen2"):
        answer = service.chat(model=model, messages="x", max_tokens=3)
        assert (answer.status_code, answer.json()["model"]) == (200, model)
    unnamed = service.chat(messages="x", max_tokens=3)
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "model")
    assert service.chat(model="gpt-4", messages="x").status_code == 404
    assert other.model_server is not None
    other.model_server.kill()
    wait_until(lambda: service.status("/readyz") == 503, 5, "one model is lost")
    assert service.chat(model="qwen2", messages="x", max_tokens=3).status_code == 503
    assert service.chat(model="llama", messages="x", max_tokens=3).status_code == 200
    other.start_model_server()
    service.wait_ready()
    assert service.chat(model="qwen2", messages="x", max_tokens=3).status_code == 200
