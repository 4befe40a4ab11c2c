"""Folders of wire keys, good and bad."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prebuilt_apps.cli.wire_folders import WireFolders
from vfastml.engine.wire_keys import GatewayKeys, ServerKeys, WireKeyError, read_pair, read_public

pytestmark = pytest.mark.rule("S2")

ENDPOINT = "tcp://model:6500"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A model server and its two gateways."""
    WireFolders(tmp_path / "keys").make("main", ["ann", "bob"])
    return tmp_path / "keys"


def public(keys: Path, gateway: str) -> bytes:
    return read_public(keys / f"gateway-{gateway}" / "gateway.key")


def test_both_ends_know_each_other(keys: Path) -> None:
    server = ServerKeys(keys / "server-main")
    assert [server.name_of(public(keys, name)) for name in ("ann", "bob")] == ["ann", "bob"]
    ann = GatewayKeys(keys / "gateway-ann").keys_for(ENDPOINT)
    assert ann is not None
    assert (ann.own.public, ann.server) == (public(keys, "ann"), server.pair.public)


def test_a_secret_does_not_show(keys: Path) -> None:
    pair = read_pair(keys / "server-main" / "server.key_secret")
    assert pair.secret.decode() not in repr(pair)


def test_whoever_has_the_servers_folder_is_let_in(keys: Path) -> None:
    server = ServerKeys(keys / "server-main")
    own = GatewayKeys(keys / "server-main").keys_for(ENDPOINT)
    assert own is not None
    assert own.server == own.own.public == server.pair.public
    assert server.name_of(own.own.public) is not None


def test_a_folder_that_cannot_be_read_for_a_moment_is_read_again(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, ann = ServerKeys(keys / "server-main"), public(keys, "ann")
    (keys / "server-main" / "gateway-ann.key").unlink()

    def no_descriptor_left(folder: Path) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", no_descriptor_left)
        server.refresh()
        assert server.name_of(ann) == "ann"
        assert server.unreadable == ("server-main",)
    server.refresh()
    assert server.name_of(ann) is None
    assert server.unreadable == ()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def chmod(name: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(mode)


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda folder: [file.unlink() for file in folder.glob(pattern)] and None


def put_the_public_half_in_its_place(folder: Path) -> None:
    shutil.copy(folder / "server.key", folder / "server.key_secret")
    (folder / "server.key_secret").chmod(0o600)


def mix_two_pairs(folder: Path) -> None:
    secret = folder / "server.key_secret"
    own, other = read_pair(secret), read_public(folder / "gateway-ann.key")
    secret.write_bytes(secret.read_bytes().replace(own.public, other))


BAD_SERVERS = {
    "missing folder": (shutil.rmtree, "there is no folder"),
    "missing secret": (remove("server.key_secret"), "server.key_secret cannot be read"),
    "empty secret": (write("server.key_secret", ""), "it has no public key"),
    "short key": (write("server.key_secret", 'public-key = "abc"'), "its public key is malformed"),
    "no z85": (write("server.key_secret", f'public-key = "{"~" * 40}"'), "its public key is malformed"),
    "bytes": (write("server.key_secret", "public-key = \N{SNOWMAN}"), "its public key is malformed"),
    "public half": (put_the_public_half_in_its_place, "is no secret certificate"),
    "two pairs": (mix_two_pairs, "do not belong together"),
    "secret for all": (chmod("server.key_secret", 0o604), "others can read"),
    "secret for a group": (chmod("server.key_secret", 0o640), "others can read"),
    "folder for all": (chmod(".", 0o707), "others can write to"),
    "folder for a group": (chmod(".", 0o770), "others can write to"),
    "nobody may connect": (remove("gateway-*.key"), "lets no gateway in"),
    "bad gateway": (write("gateway-bob.key", "nonsense"), "gateway-bob.key is no certificate"),
}


@pytest.mark.parametrize("case", BAD_SERVERS)
def test_a_model_servers_folder_that_cannot_be_used(keys: Path, case: str) -> None:
    spoil, words = BAD_SERVERS[case]
    secret = read_pair(keys / "server-main" / "server.key_secret").secret.decode()
    spoil(keys / "server-main")
    with pytest.raises(WireKeyError, match=words) as raised:
        ServerKeys(keys / "server-main")
    assert secret not in str(raised.value)
    assert "\n" not in str(raised.value)


BAD_GATEWAYS = {
    "missing folder": (shutil.rmtree, "there is no folder"),
    "missing secret": (remove("gateway.key_secret"), "gateway.key_secret cannot be read"),
    "secret for all": (chmod("gateway.key_secret", 0o644), "others can read"),
    "no server": (remove("server-*.key"), r"has no server-NAME\.key"),
    "bad server": (write("server-main.key", "nonsense"), "server-main.key is no certificate"),
}


@pytest.mark.parametrize("case", BAD_GATEWAYS)
def test_a_gateways_folder_that_cannot_be_used(keys: Path, case: str) -> None:
    spoil, words = BAD_GATEWAYS[case]
    spoil(keys / "gateway-ann")
    with pytest.raises(WireKeyError, match=words):
        GatewayKeys(keys / "gateway-ann").check([ENDPOINT])


def test_a_secret_of_root_may_be_for_a_group(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a Secret of Kubernetes is with fsGroup: the process is another user than root.
    secret = keys / "server-main" / "server.key_secret"
    secret.chmod(0o440)
    found, lower = secret.stat(), os.stat_result
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    monkeypatch.setattr(Path, "stat", lambda _, **__: lower((*found[:4], 0, *found[5:])))
    assert read_pair(secret).secret
    monkeypatch.setattr(Path, "stat", lambda _, **__: lower((found[0] | 0o004, *found[1:4], 0, *found[5:])))
    with pytest.raises(WireKeyError, match="others can read"):
        read_pair(secret)
    monkeypatch.setattr(Path, "stat", lambda _, **__: lower((*found[:4], 10002, *found[5:])))
    with pytest.raises(WireKeyError, match="belongs to another user"):
        read_pair(secret)


def test_several_servers_are_told_apart_by_their_hosts(tmp_path: Path) -> None:
    folders = WireFolders(tmp_path)
    for server in ("a.models.svc", "b.models.svc", "b.models.svc_6501"):
        folders.make(server, ["ann"])
    ann = GatewayKeys(tmp_path / "gateway-ann")

    def chosen(endpoint: str) -> bytes:
        keys = ann.keys_for(endpoint)
        assert keys is not None
        return keys.server

    for endpoint, name in (
        ("tcp://a.models.svc:6500", "a.models.svc"),
        ("tcp://b.models.svc:6500", "b.models.svc"),
        ("tcp://b.models.svc:6501", "b.models.svc_6501"),
    ):
        assert chosen(endpoint) == read_public(tmp_path / f"server-{name}" / "server.key")
    with pytest.raises(WireKeyError, match=r"none is called server-10\.0\.0\.7\.key"):
        ann.check(["tcp://10.0.0.7:6500"])


def test_a_socket_file_needs_none(tmp_path: Path) -> None:
    assert GatewayKeys(tmp_path / "nowhere").keys_for("ipc:///run/vfastml/wire") is None


def test_the_list_is_read_anew_when_it_changes(keys: Path) -> None:
    folder = keys / "server-main"
    server = ServerKeys(folder)
    (folder / "gateway-ann.key").unlink()
    WireFolders(keys).make("main", ["eve"])
    server.refresh()
    assert [server.name_of(public(keys, name)) for name in ("ann", "bob", "eve")] == [None, "bob", "eve"]

    (folder / "gateway-bob.key").write_text("half a certifi")
    server.refresh()
    assert (server.name_of(public(keys, "bob")), server.unreadable) == (None, ("gateway-bob.key",))
    assert server.name_of(public(keys, "eve")) == "eve"

    shutil.rmtree(folder)
    server.refresh()
    assert server.name_of(public(keys, "eve")) is None


def test_the_list_of_a_mounted_secret(keys: Path, tmp_path: Path) -> None:
    # Kubernetes' files are links through a link, which it turns to another folder in one move.
    mount, before, after = tmp_path / "mount", tmp_path / "mount" / "..1", tmp_path / "mount" / "..2"
    shutil.copytree(keys / "server-main", before)
    (mount / "..data").symlink_to("..1")
    for file in before.iterdir():
        (mount / file.name).symlink_to(Path("..data") / file.name)
    server = ServerKeys(mount)
    shutil.copytree(before, after)
    (after / "gateway-ann.key").unlink()
    (mount / "..new").symlink_to("..2")
    os.replace(mount / "..new", mount / "..data")
    server.refresh()
    assert [server.name_of(public(keys, name)) for name in ("ann", "bob")] == [None, "bob"]
