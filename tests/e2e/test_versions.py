"""Gateways of the protocol before and after ours, at a real model server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import READY_S, Service, free_port, wait_until
from vfastml.engine.wire import PROTOCOL

OF_PROTOCOL = """
import sys
from vfastml.engine import wire
wire.PROTOCOL = int(sys.argv.pop(1))
if wire.PROTOCOL == 2:  # there were no checksums
    wire.sealed, wire.opened = bytes, memoryview
from prebuilt_apps.openai.api_server import main
sys.exit(main(sys.argv[1:]))
"""


class OtherGateway:
    """A gateway process that speaks that protocol, with its output in `log`."""

    def __init__(self, folder: Path, protocol: int, rpc_port: int) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / f"gateway-{protocol}.log"
        arguments = [str(protocol), "--port", str(port), "--model-server", f"tcp://127.0.0.1:{rpc_port}"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", OF_PROTOCOL, *arguments], stdout=output, stderr=subprocess.STDOUT
            )

    def has_refused(self) -> bool:
        return "it is not used" in self.log.read_text()

    def lines_about_protocols(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "protocol" in line]


@pytest.fixture
def others(tiny_service: Service, tmp_path: Path) -> Iterator[list[OtherGateway]]:
    """One of the protocol before ours, one of the next."""
    gateways = [OtherGateway(tmp_path, protocol, tiny_service.rpc_port) for protocol in (PROTOCOL - 1, PROTOCOL + 1)]
    try:
        yield gateways
    finally:
        for gateway in gateways:
            gateway.process.kill()
            gateway.process.wait(10)


def test_they_are_refused_by_one_line_on_either_side(tiny_service: Service, others: list[OtherGateway]) -> None:
    wait_until(lambda: all(gateway.has_refused() for gateway in others), READY_S, "both have heard of another protocol")
    body = {"model": "tiny", "prompt": "x", "max_tokens": 3}
    for gateway in others:
        assert httpx.get(f"{gateway.url}/livez").status_code == 200
        refused = httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=60)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert len(gateway.lines_about_protocols()) == 1
    assert tiny_service.http.post("/v1/completions", json=body).status_code == 200
    said = [line for line in tiny_service.log("model_server").splitlines() if "speaks protocol" in line]
    assert len(said) in (1, 2)  # such lines are said once in ten seconds
