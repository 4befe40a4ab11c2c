"""Whose folder a socket file is in."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.ipc_folder import IpcFolderError, check_ipc_folder, enter_ipc_folder, ipc_folder_of
from vfastml.entrypoints.gateway_config import GatewayConfig

pytestmark = pytest.mark.rule("S2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def open_folder(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def test_the_folder_of_an_endpoint() -> None:
    assert ipc_folder_of("ipc:///run/vfastml/wire") == Path("/run/vfastml")
    assert ipc_folder_of("tcp://127.0.0.1:6500") is None


def test_it_is_made_for_this_user_alone(folder: Path) -> None:
    check_ipc_folder(folder)
    umask = os.umask(0)
    try:
        enter_ipc_folder(folder)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    enter_ipc_folder(folder)


@pytest.mark.parametrize("wide", [0o710, 0o701, 0o755, 0o777])
def test_others_can_enter(folder: Path, wide: int) -> None:
    folder.mkdir()
    folder.chmod(wide)
    refused(folder, "other users can enter")


def test_a_link_in_its_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")
    refused(folder, "is a link")


def test_a_file_in_its_place(folder: Path) -> None:
    folder.touch()
    refused(folder, "no folder")


def test_another_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(folder).st_uid + 1)
    refused(folder, "belongs to another user")


def test_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IpcFolderError, match="cannot make"):
        enter_ipc_folder(tmp_path / "file" / "run")


async def test_a_gateway_does_not_go_where_others_can(open_folder: Path) -> None:
    endpoint = f"ipc://{open_folder / 'wire'}"
    with pytest.raises(ValueError, match="other users can enter"):
        GatewayConfig(model_servers=(endpoint,))
    engine = DispatchEngine([endpoint])
    try:
        with pytest.raises(IpcFolderError):
            await engine.start()
    finally:
        await engine.close()


def test_a_gateway_that_comes_first_makes_the_folder(folder: Path) -> None:
    async def start_and_close() -> None:
        engine = DispatchEngine([f"ipc://{folder / 'wire'}"])
        await engine.start()
        await engine.close()

    asyncio.run(start_and_close())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def refused(folder: Path, words: str) -> None:
    for look in (check_ipc_folder, enter_ipc_folder):
        with pytest.raises(IpcFolderError, match=words):
            look(folder)
