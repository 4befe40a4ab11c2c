"""Gateways and model servers of different versions: they work together, or one line says that they do not."""

import asyncio

import msgspec
import pytest

from tests.engine.fake_server import FakeServer, until
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.server_table import ServerState
from vfastml.engine.wire import PROTOCOL, opened, sealed


class OlderServer(FakeServer):
    """Of the same protocol, from before the fields that have been appended to Hello."""

    def _send(self, peer: bytes, frame: bytes) -> None:
        values = msgspec.msgpack.decode(opened(frame))
        super()._send(peer, sealed(msgspec.msgpack.encode(values[:5])) if values[0] == "Hello" else frame)


class NewerServer(FakeServer):
    """Of the same protocol, with a field at the end of each message that we do not know yet."""

    def _send(self, peer: bytes, frame: bytes) -> None:
        super()._send(peer, sealed(msgspec.msgpack.encode([*msgspec.msgpack.decode(opened(frame)), ["of tomorrow"]])))


def about_protocols(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for record in caplog.records if "protocol" in (text := record.getMessage())]


@pytest.mark.parametrize("kind", [OlderServer, NewerServer])
async def test_another_version_of_the_same_protocol_works(kind, start_engine, caplog):
    server = kind()
    try:
        engine = await start_engine(server)
        await until(engine.is_ready)
        task = engine.dispatch(TextGenerationReq(request_id="r1", prompt="one two"))
        assert (await task.get_result()).result.choices[0].text == "one two "
    finally:
        await server.stop()
    assert about_protocols(caplog) == []


@pytest.mark.parametrize("protocol", [PROTOCOL - 1, PROTOCOL + 1])
async def test_another_protocol_is_said_once_and_not_used(protocol, start_server, start_engine, caplog):
    other, right = start_server(protocol=protocol), start_server()
    engine: DispatchEngine = await start_engine(other, right)
    await until(lambda: {view.state for view in engine.servers()} == {ServerState.INCOMPATIBLE, ServerState.LIVE})
    for number in range(4):
        other.broadcast(other.hello())
        await engine.dispatch(TextGenerationReq(request_id=f"r{number}", prompt="one")).get_result()
        await asyncio.sleep(0.4)  # in all, longer than it takes until Join is repeated to who has not answered
    assert about_protocols(caplog) == [
        f"The model server at {other.endpoint} speaks protocol {protocol} and this gateway {PROTOCOL}: it is not used."
    ]
    assert (len(other.requests), len(right.requests)) == (0, 4)


async def test_its_successor_of_the_right_protocol_is_used(start_server, start_engine):
    other = start_server(protocol=PROTOCOL + 1)
    engine: DispatchEngine = await start_engine(other)
    await until(lambda: engine.servers()[0].state is ServerState.INCOMPATIBLE)
    await other.stop()
    start_server(port=other.port)
    await until(engine.is_ready)
    assert (await engine.dispatch(TextGenerationReq(request_id="r1", prompt="one")).get_result()).result
