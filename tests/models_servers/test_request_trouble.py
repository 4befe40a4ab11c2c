"""What one request raises on the model's thread is its own trouble: the server goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.e2e.service import free_port
from tests.models_servers.raw_gateway import RawGateway
from tests.models_servers.started_process import StartedProcess
from tests.models_servers.stub_server import AcceptBreaks, Asked, Silent
from vfastml.engine.dispatch_replies import Accepted, Failed, Hello, Load, StepReply
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.models_servers.inbox import Cancelled
from vfastml.models_servers.model_server import ModelServer
from vfastml.models_servers.unsent_replies import WorkReply

STUB = "tests.models_servers.stub_server"
FAILED = Failed("a", "InternalServerError", "The request could not be begun.", None, "internal_error")


class Outbox:
    """In the place of a server's link."""

    def __init__(self, server: ModelServer) -> None:
        self.sent: list[WorkReply] = []
        server._link = self  # type: ignore[assignment]

    def send(self, replies: Iterable[WorkReply], load: Load) -> None:
        self.sent += replies


@pytest.mark.rule("S12")
def test_request_that_cannot_be_queued_fails(caplog: pytest.LogCaptureFixture) -> None:
    server = AcceptBreaks("text_generation", "stub")
    server.load()
    outbox = Outbox(server)
    server._take(Asked("a"))
    assert outbox.sent == [FAILED]
    assert "out of cheese" in caplog.text


def test_cancel_that_raises_is_logged_and_has_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    server = Silent("text_generation", "stub")
    server.load()
    outbox = Outbox(server)
    server._take(Cancelled("never heard of"))
    assert outbox.sent == []
    assert "never heard of failed" in caplog.text
    server._take(Asked("b"))
    assert server.asked == ["b"]


@pytest.mark.rule("S12")
def test_process_goes_on_and_stops_with_0(tmp_path: Path) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, "AcceptBreaks", port) as server, RawGateway(port) as gateway:
        assert isinstance(gateway.next(), Hello)
        for _ in range(3):
            gateway.send(TextGenerationReq(request_id="a", prompt="x"))
            assert gateway.next() == Accepted("a", 1)
            assert gateway.next() == StepReply([], [FAILED])
        server.process.send_signal(signal.SIGTERM)
        assert server.status() == 0
