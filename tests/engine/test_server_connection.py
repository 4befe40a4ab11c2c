import asyncio

import pytest
import zmq

from tests.engine.fake_server import FakeServer, until
from vfastml.engine import server_connection, wire
from vfastml.engine.dispatch_requests import CancelReq, Join
from vfastml.engine.server_connection import ServerConnection
from vfastml.engine.wire import SEND_QUEUE_MESSAGES, bind_router, bound_port, encode_request


class Listener:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.frames: list[bytes] = []

    def on_connected(self, endpoint: str) -> None:
        self.told.append("connected")

    def on_frame(self, endpoint: str, frame: bytes) -> None:
        self.frames.append(frame)

    def on_refused(self, endpoint: str, failure: object) -> None:
        self.told.append("refused")

    def on_disconnected(self, endpoint: str) -> None:
        self.told.append("disconnected")


@pytest.fixture
async def connect():
    context = zmq.Context()
    connections = []

    def connect(endpoint: str) -> tuple[ServerConnection, Listener]:
        listener = Listener()
        connections.append(ServerConnection(context, endpoint, "gateway", listener))
        connections[-1].open()
        return connections[-1], listener

    yield connect
    for connection in connections:
        connection.close()
    context.term()


async def test_nobody_there(connect):
    server = FakeServer()
    await server.stop()
    connection, listener = connect(server.endpoint)
    await asyncio.sleep(0.1)
    assert not connection.send(b"x")
    assert listener.told == []


async def test_each_session_has_an_identity_of_its_own(connect, start_server):
    server = start_server()
    connection, listener = connect(server.endpoint)
    identities = set()
    for session in range(1, 4):
        await until(lambda session=session: listener.told.count("connected") == session)
        assert connection.send(encode_request(Join(1, "gateway")))
        await until(lambda server=server: server.joins)
        identities.update(server.joins)
        await server.stop()
        await until(lambda session=session: listener.told.count("disconnected") == session)
        assert not connection.send(b"x")
        server = start_server(port=server.port)
    assert len(identities) == 3
    assert all(identity.startswith(b"gateway-") for identity in identities)


async def test_what_arrived_before_the_end_is_delivered(connect, start_server):
    server = start_server()
    connection, listener = connect(server.endpoint)
    await until(lambda: listener.told)
    connection.send(encode_request(Join(1, "gateway")))
    await until(lambda: listener.frames)
    for i in range(900):
        server.broadcast_frame(b"%d" % i)
    await until(lambda: len(listener.frames) == 901)
    assert listener.frames[1:] == [b"%d" % i for i in range(900)]


async def test_frames_are_read_while_others_are_sent(connect, start_server):
    """A send may take the signal of an arrived frame off the watched descriptor."""
    server = start_server()
    connection, listener = connect(server.endpoint)
    await until(lambda: listener.told)
    for i in range(300):
        assert connection.send(encode_request(Join(1, "gateway")))
        assert connection.send(encode_request(CancelReq(request_id=str(i))))
        if i % 3 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(listener.frames) == 300 and len(server.cancelled) == 300)


async def test_a_peer_that_does_not_read_fills_the_queue(connect):
    context = zmq.Context()
    router = bind_router(context, "127.0.0.1", 0)
    connection, listener = connect(f"tcp://127.0.0.1:{bound_port(router)}")
    await until(lambda: listener.told)
    taken = 0
    while taken < 20 * SEND_QUEUE_MESSAGES and connection.send(bytes(20_000)):
        taken += 1
    assert SEND_QUEUE_MESSAGES <= taken < 20 * SEND_QUEUE_MESSAGES
    router.close()
    context.term()


@pytest.fixture
async def stuck(connect, monkeypatch):
    """A connection to a peer that reads nothing yet, with no room for another frame, and that peer."""
    # Where there is no room for frames, heartbeats do not get through either.
    monkeypatch.setattr(wire, "HEARTBEAT_TIMEOUT_MS", 60_000)
    context = zmq.Context()
    router = bind_router(context, "127.0.0.1", 0)
    connection, listener = connect(f"tcp://127.0.0.1:{bound_port(router)}")
    await until(lambda: listener.told)
    while connection.send(bytes(20_000)):
        while connection.send(bytes(20_000)):
            pass
        await asyncio.sleep(0.05)  # the system's own buffers take some more
    yield connection, listener, router
    router.close()
    context.term()


async def test_what_has_to_be_sent_is_sent_when_there_is_room(stuck):
    connection, _, router = stuck
    frames = [b"%d" % i for i in range(1500)]
    for frame in frames:
        connection.send_surely(frame)
    read = []

    def read_all() -> bool:
        while router.poll(0):
            read.append(router.recv_multipart()[1])
        return len(read) > len(frames) and read[-1] == frames[-1]

    await until(read_all)
    assert [frame for frame in read if len(frame) < 20_000] == frames


async def test_a_session_ends_when_too_much_has_to_be_sent(stuck, monkeypatch, caplog):
    connection, listener, _ = stuck
    monkeypatch.setattr(server_connection, "_MAX_UNSENT", 3)
    while not caplog.records:
        connection.send_surely(bytes(20_000))
    assert "given up" in caplog.text
    await until(lambda: listener.told == ["connected", "disconnected", "connected"])


async def test_nothing_is_kept_for_a_session_to_come(connect, start_server):
    server = FakeServer()
    await server.stop()
    connection, listener = connect(server.endpoint)
    connection.send_surely(encode_request(CancelReq(request_id="old")))
    server = start_server(port=server.port)
    await until(lambda: listener.told)
    connection.send_surely(encode_request(CancelReq(request_id="new")))
    await until(lambda: server.cancelled == ["new"])


async def test_close_ends_the_reconnecting(connect, start_server):
    server = start_server()
    connection, listener = connect(server.endpoint)
    await until(lambda: listener.told)
    await server.stop()
    await until(lambda: len(listener.told) == 2)
    connection.close()
    start_server(port=server.port)
    await asyncio.sleep(0.4)
    assert listener.told == ["connected", "disconnected"]


async def test_reopening_goes_on_after_a_failure(connect, start_server, monkeypatch):
    server = start_server()
    connection, listener = connect(server.endpoint)
    await until(lambda: listener.told)

    def out_of_descriptors():
        monkeypatch.undo()
        raise zmq.ZMQError(zmq.ETERM)

    monkeypatch.setattr(connection, "open", out_of_descriptors)
    await server.stop()
    start_server(port=server.port)
    await until(lambda: listener.told == ["connected", "disconnected", "connected"])


async def test_what_answers_like_a_web_server_is_no_server_that_is_gone(connect):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with web:
        _, listener = connect(f"tcp://127.0.0.1:{web.sockets[0].getsockname()[1]}")
        await until(lambda: listener.told.count("refused") >= 2)
    assert set(listener.told) == {"refused"}
