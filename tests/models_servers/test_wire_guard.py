"""A link with wire keys: who is heard, and who is not."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from prebuilt_apps.cli.wire_folders import WireFolders
from tests.e2e.service import wait_until
from tests.models_servers.raw_gateway import PATIENCE_S, RawGateway
from tests.models_servers.recording_proxy import Change, RecordingProxy
from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Accepted, Hello, ServedModel
from vfastml.engine.dispatch_requests import Request, TextGenerationReq, WorkReq
from vfastml.engine.handshakes import FAILURES, HandshakeFailure, failure_of
from vfastml.engine.wire_keys import DealerKeys, GatewayKeys, KeyPair, read_pair
from vfastml.models_servers.admission import Admission
from vfastml.models_servers.inbox import Cancelled
from vfastml.models_servers.server_link import ServerLink
from vfastml.models_servers.wire_guard import WireGuard

pytestmark = pytest.mark.rule("S2")

HELLO = Hello(wire.PROTOCOL, "server", "text_generation", [ServedModel("m", "m")])
LONG = "x" * 5000
EITHER_END_FIRST = {HandshakeFailure.OTHER_MECHANISM, HandshakeFailure.HUNG_UP}
"""Each end sees in the other's greeting that it has no keys, and hangs up."""


@dataclass
class Taken:
    request_id: str

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 5)


@dataclass
class Heard:
    """What the link has decoded and prepared."""

    frames: list[bytes] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    num_ignored: int = 0
    """Messages of those that may not speak any more."""


@pytest.fixture
def folders(tmp_path: Path) -> WireFolders:
    return WireFolders(tmp_path)


@pytest.fixture
def ann(tmp_path: Path, folders: WireFolders) -> DealerKeys:
    folders.make("main", ["ann"])
    return keys_of(tmp_path / "gateway-ann")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()
    decode, receive = wire.decode_request, WireGuard.receive

    def decoded(frame: bytes) -> Request:
        heard.frames.append(frame)
        return decode(frame)

    def received(guard: WireGuard, router: zmq.Socket[bytes]) -> list[bytes]:
        message = receive(guard, router)
        heard.num_ignored += not message
        return message

    monkeypatch.setattr(wire, "decode_request", decoded)
    monkeypatch.setattr(WireGuard, "receive", received)
    return heard


@pytest.fixture
def link(tmp_path: Path, ann: DealerKeys, heard: Heard) -> Iterator[ServerLink]:
    def prepare(request: WorkReq) -> Taken:
        heard.requests.append(request.request_id)
        return Taken(request.request_id)

    link = ServerLink("127.0.0.1", 0, prepare, Admission(), wire_keys=str(tmp_path / "server-main"))
    yield link
    link.close()


@pytest.fixture
def port(link: ServerLink) -> int:
    port = link.open()
    link.ready(HELLO)
    return port


def keys_of(folder: Path) -> DealerKeys:
    keys = GatewayKeys(folder).keys_for("tcp://model:6500")
    assert keys is not None
    return keys


def ask(gateway: RawGateway, request_id: str, prompt: str = "x") -> None:
    gateway.send(TextGenerationReq(request_id=request_id, prompt=prompt))


def is_served(port: int, keys: DealerKeys, request_id: str) -> None:
    """Whoever has these keys gets answers."""
    with RawGateway(port, keys=keys) as gateway:
        assert gateway.next() == HELLO
        ask(gateway, request_id)
        assert gateway.next() == Accepted(request_id, 5)


def refused(port: int, give_keys: Callable[[zmq.Socket[bytes]], object]) -> HandshakeFailure:
    """How the handshake of such a client ends, which has something to say."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        give_keys(dealer)
        monitor = dealer.get_monitor_socket(FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        with contextlib.suppress(zmq.Again):  # refused already
            dealer.send(wire.encode_request(TextGenerationReq(request_id="stranger", prompt="x")), zmq.NOBLOCK)
        assert monitor.poll(int(PATIENCE_S * 1000))
        event = parse_monitor_message(monitor.recv_multipart())
        dealer.disable_monitor()
        monitor.close()
        assert event["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED
        return failure_of(event["event"], event["value"])


def with_curve(dealer: zmq.Socket[bytes], own: KeyPair, server: bytes) -> None:
    dealer.setsockopt(zmq.CURVE_SERVERKEY, server)
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, own.public)
    dealer.setsockopt(zmq.CURVE_SECRETKEY, own.secret)


def with_password(dealer: zmq.Socket[bytes]) -> None:
    dealer.setsockopt(zmq.PLAIN_USERNAME, b"ann")
    dealer.setsockopt(zmq.PLAIN_PASSWORD, b"secret")


def new_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def test_the_right_key_is_answered(port: int, ann: DealerKeys, heard: Heard) -> None:
    is_served(port, ann, "r")
    assert heard.requests == ["r"]


def test_two_gateways_have_keys_of_their_own(tmp_path: Path, folders: WireFolders, ann: DealerKeys, port: int) -> None:
    folders.make("main", ["bob"])  # while the server runs
    bob = keys_of(tmp_path / "gateway-bob")
    assert ann.own.public != bob.own.public
    with RawGateway(port, keys=ann) as first, RawGateway(port, keys=bob) as second:
        for gateway, request_id in ((first, "a"), (second, "b")):
            assert gateway.next() == HELLO
            ask(gateway, request_id)
            assert gateway.next() == Accepted(request_id, 5)


@pytest.mark.parametrize(
    ("stranger", "failures"),
    [
        ("unknown key", {HandshakeFailure.UNKNOWN_KEY}),
        ("no key", EITHER_END_FIRST),
        ("password", EITHER_END_FIRST),
        ("another server's key", {HandshakeFailure.HUNG_UP}),
    ],
)
def test_a_stranger_delivers_nothing(
    port: int, ann: DealerKeys, heard: Heard, stranger: str, failures: set[HandshakeFailure]
) -> None:
    give: dict[str, Callable[[zmq.Socket[bytes]], object]] = {
        "unknown key": lambda dealer: with_curve(dealer, new_pair(), ann.server),
        "no key": lambda _: None,
        "password": with_password,
        "another server's key": lambda dealer: with_curve(dealer, ann.own, new_pair().public),
    }
    for _ in range(3):
        assert refused(port, give[stranger]) in failures
    assert (heard.frames, heard.requests, heard.num_ignored) == ([], [], 0)
    is_served(port, ann, "r")
    assert heard.requests == ["r"]


def test_an_unknown_key_and_no_key_are_in_the_log(port: int, ann: DealerKeys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    refused(port, lambda dealer: with_curve(dealer, new_pair(), ann.server))
    wait_until(lambda: "its key is none of those in the folder of --wire-keys" in caplog.text, PATIENCE_S, "a warning")
    refused(port, lambda _: None)
    wait_until(
        lambda: "before it had shown a key" in caplog.text or "without --wire-keys was refused" in caplog.text,
        PATIENCE_S,
        "a warning",
    )
    refused(port, lambda dealer: with_curve(dealer, ann.own, new_pair().public))
    wait_until(lambda: "another server's server-NAME.key" in caplog.text, PATIENCE_S, "a warning")


def test_nobody_comes_in_while_nobody_is_there_to_ask(tmp_path: Path, ann: DealerKeys) -> None:
    pair = read_pair(tmp_path / "server-main" / "server.key_secret")
    with zmq.Context() as context:
        router = wire.bind_router(context, "127.0.0.1", 0, pair)
        monitor = router.get_monitor_socket(FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        with RawGateway(wire.bound_port(router), keys=ann):
            assert monitor.poll(int(PATIENCE_S * 1000))
            assert parse_monitor_message(monitor.recv_multipart())["event"] & FAILURES
            assert not router.poll(0)
        router.disable_monitor()
        monitor.close()
        router.close()


def test_a_recorded_session_delivers_nothing(port: int, ann: DealerKeys, heard: Heard) -> None:
    with RecordingProxy(port) as proxy:
        is_served(proxy.port, ann, "once")
        frames = len(heard.frames)
        assert len(proxy.sent) > 200
        for piece in (len(proxy.sent), 64, 1):
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as peer:
                send_in_pieces(peer, proxy.sent, piece)
                hears_the_end(peer)
    assert (len(heard.frames), heard.requests) == (frames, ["once"])
    is_served(port, ann, "again")


def send_in_pieces(peer: socket.socket, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        try:
            peer.sendall(data[start : start + size])
        except OSError:
            return  # the server has hung up


def hears_the_end(peer: socket.socket) -> None:
    """Raises TimeoutError if the server holds the connection."""
    try:
        while peer.recv(1 << 16):
            pass
    except ConnectionError:
        return


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "delivered"),
    [(flipped, []), (lambda data: data + data, ["r"]), (lambda data: data[:-20], [])],
    ids=["flipped", "repeated", "cut"],
)
def test_a_changed_frame_ends_the_session_and_delivers_nothing(
    port: int, ann: DealerKeys, heard: Heard, change: Change, delivered: list[str]
) -> None:
    with RecordingProxy(port) as proxy, RawGateway(proxy.port, keys=ann) as gateway:
        assert gateway.next() == HELLO
        proxy.change_next(change)
        ask(gateway, "r", LONG)
        assert proxy.server_hung_up.wait(PATIENCE_S)
    is_served(port, ann, "after")
    assert heard.requests == [*delivered, "after"]


def test_a_revoked_gateway_is_not_heard_any_more(
    tmp_path: Path, folders: WireFolders, ann: DealerKeys, link: ServerLink, port: int, heard: Heard
) -> None:
    folders.make("main", ["bob"])
    bob = keys_of(tmp_path / "gateway-bob")
    with RawGateway(port, keys=ann) as gateway, RawGateway(port, keys=bob) as other:
        assert (gateway.next(), other.next()) == (HELLO, HELLO)
        for each, request_id in ((gateway, "open"), (other, "another")):
            ask(each, request_id)
            assert each.next() == Accepted(request_id, 5)
            assert link.inbox.get(timeout=PATIENCE_S) == Taken(request_id)
        folders.revoke("ann")
        assert link.inbox.get(timeout=PATIENCE_S) == Cancelled("open")
        while gateway.next_frame() != wire.DAMAGED:
            pass
        gateway.join()
        ask(gateway, "too late")
        wait_until(lambda: heard.num_ignored == 2, PATIENCE_S, "its messages came")
        assert refused(port, lambda dealer: with_curve(dealer, ann.own, ann.server)) is HandshakeFailure.UNKNOWN_KEY
        ask(other, "still")
        assert other.next() == Accepted("still", 5)
    assert heard.requests == ["open", "another", "still"]

    folders.make("main", ["ann"])
    again = keys_of(tmp_path / "gateway-ann")
    assert again.own.public != ann.own.public
    is_served(port, again, "back")


def test_a_gateway_that_never_joined_is_revoked_too(
    folders: WireFolders, ann: DealerKeys, link: ServerLink, port: int
) -> None:
    folders.make("main", ["bob"])
    with RawGateway(port, keys=ann, joins=False) as gateway:
        ask(gateway, "open")
        assert gateway.next() == Accepted("open", 5)
        assert link.inbox.get(timeout=PATIENCE_S) == Taken("open")
        folders.revoke("ann")
        assert link.inbox.get(timeout=PATIENCE_S) == Cancelled("open")


def test_a_gateway_with_keys_at_a_server_without_is_in_the_log(
    ann: DealerKeys, caplog: pytest.LogCaptureFixture
) -> None:
    link = ServerLink("127.0.0.1", 0, lambda request: Taken(request.request_id), Admission())
    try:
        port = link.open()

        def is_told() -> bool:
            refused(port, lambda dealer: with_curve(dealer, ann.own, ann.server))
            return "has --wire-keys: this server has none" in caplog.text

        wait_until(is_told, PATIENCE_S, "a warning")
    finally:
        link.close()
