"""A model server's lines about one request say which."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.service import free_port
from tests.models_servers.raw_gateway import RawGateway
from tests.models_servers.started_process import StartedProcess
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.models_servers.model_server import ModelServer


@pytest.mark.rule("S10")
def test_lines_about_a_request_have_its_id(tmp_path: Path) -> None:
    port = free_port()
    module = "tests.models_servers.speaking_server"
    with StartedProcess(tmp_path / "log", module, port) as server, RawGateway(port) as gateway:
        gateway.next()
        for number, prompt in enumerate(("prepare", "accept")):
            gateway.send(TextGenerationReq(request_id=f"r{number}", prompt=prompt))
            gateway.next()
        gateway.next()  # of the second one, which was accepted before it failed
        server.process.send_signal(signal.SIGTERM)
        assert server.status() == 0
    lines = [json.loads(line) for line in server.output.splitlines()]
    assert {line["process"] for line in lines} == {"model-server"}
    told = [(line["logger"], line.get("request_id")) for line in lines if line["level"] in ("warning", "error")]
    assert told == [
        ("some.tokenizer", "r0"),
        ("vfastml.engine.request_failure", "r0"),
        ("some.tokenizer", "r1"),
        ("vfastml.engine.request_failure", "r1"),
    ]
    causes = [line["exception"] for line in lines if "exception" in line]
    assert ["no way" in causes[0], "out of cheese" in causes[1]] == [True, True]
    assert all(line.isprintable() for line in server.output.splitlines())
    assert "request_id" not in lines[-1]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="text, json"):
        ModelServer("text_generation", "stub", log_format="xml").run_forever()
