"""The socket file of a model server: who can get at it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.models_servers.raw_gateway import RawGateway
from vfastml.engine import wire
from vfastml.engine.dispatch_replies import Accepted, Hello, ServedModel
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.ipc_folder import IpcFolderError
from vfastml.models_servers.admission import Admission
from vfastml.models_servers.ipc_place import IpcPlace, IpcPlaceError
from vfastml.models_servers.server_link import ServerLink

pytestmark = pytest.mark.rule("S2")

HELLO = Hello(wire.PROTOCOL, "server", "text_generation", [ServedModel("m", "m")])


class Taken:
    def __init__(self, request_id: str) -> None:
        self.request_id = request_id

    def accepted(self) -> Accepted:
        return Accepted(self.request_id, 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "wire"


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], ServerLink]]:
    links: list[ServerLink] = []

    def start() -> ServerLink:
        link = ServerLink("", 0, lambda request: Taken(request.request_id), Admission(), ipc_path=str(path))
        links.append(link)
        link.open()
        link.ready(HELLO)
        return link

    yield start
    for link in links:
        link.close()


def is_served(path: Path) -> None:
    with RawGateway(f"ipc://{path}") as gateway:
        assert gateway.next() == HELLO
        gateway.send(TextGenerationReq(request_id="r", prompt="x"))
        assert gateway.next() == Accepted("r", 5)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_only_this_user_can_enter(path: Path, start: Callable[[], ServerLink]) -> None:
    umask = os.umask(0)
    try:
        start()
    finally:
        assert os.umask(umask) == 0
    assert (mode(path.parent), mode(path) & 0o077, mode(Path(f"{path}.lock")) & 0o077) == (0o700, 0, 0)
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    is_served(path)


def test_one_server_at_a_time(path: Path, start: Callable[[], ServerLink]) -> None:
    first = start()
    with pytest.raises(IpcPlaceError, match="another model server listens on"):
        start()
    is_served(path)
    first.close()
    assert not path.exists()
    start()
    is_served(path)


def test_the_socket_of_a_server_that_has_died_is_replaced(path: Path, start: Callable[[], ServerLink]) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    start()
    is_served(path)


def test_a_file_of_another_kind_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(IpcPlaceError, match="is no socket"):
        IpcPlace(str(path)).take()
    assert path.read_text() == "precious"


def test_a_folder_that_others_can_enter_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o710)
    with pytest.raises(IpcFolderError, match="other users can enter"):
        IpcPlace(str(path)).take()


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IpcPlaceError, match="longer than 107 bytes"):
        IpcPlace(str(tmp_path / ("x" * 107))).take()


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert IpcPlace("run/@wire").path == str(tmp_path / "run" / "@wire")
