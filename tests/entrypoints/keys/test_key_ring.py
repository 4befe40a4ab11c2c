"""Which keys open a gateway, while their file changes."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import logging
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.entrypoints.keys.key_files import write_keys
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys import key_ring
from vfastml.entrypoints.keys.api_key import ApiKey, digest_of
from vfastml.entrypoints.keys.key_file import KeyFileError
from vfastml.entrypoints.keys.key_ring import KeyRing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    write_keys(file, {"ann": {"weight": 2.0, "models": ["m"]}, "bob": {}})
    return file


def opened(ring: KeyRing, *candidates: str) -> list[str | None]:
    owners = [ring.owner(candidate.encode()) for candidate in candidates]
    return [owner.name if owner else None for owner in owners]


def test_whose_a_key_is(file: Path) -> None:
    ring = KeyRing(["static"], str(file))
    name = f"key-{digest_of(b'static').hex()[:8]}"
    assert opened(ring, "ann", "bob", "static", "Ann", "", "carl") == ["ann", "bob", name, None, None, None]
    ann = ring.owner(b"ann")
    assert ann is not None
    assert (ann.secret, ann.weight, ann.models) == (digest_of(b"ann"), 2.0, {"m"})
    assert ring.key_of(ann) == next(key for key in ring.all_keys() if key.name == "ann")
    assert ring.key_of(Tenant("ann", b"other")) is None


def test_what_the_file_says_of_a_key_wins(file: Path) -> None:
    assert opened(KeyRing(["ann"], str(file)), "ann") == ["ann"]


def test_a_ring_is_open_only_where_no_keys_were_meant(tmp_path: Path) -> None:
    empty = tmp_path / "keys.toml"
    write_keys(empty, {})
    assert KeyRing().is_open
    assert not KeyRing(["k"]).is_open
    ring = KeyRing((), str(empty))
    assert not ring.is_open
    assert opened(ring, "", "any") == [None, None]


def test_a_file_that_is_wrong_at_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        KeyRing((), str(tmp_path / "none.toml"))


def test_keys_are_added_changed_and_revoked(file: Path) -> None:
    ring = KeyRing(["static"], str(file))
    assert ring.reload() == []
    write_keys(file, {"ann": {"max_open": 3}, "carl": {}})
    assert [tenant.name for tenant in ring.reload()] == ["bob"]
    assert opened(ring, "ann", "bob", "carl") == ["ann", None, "carl"]
    assert opened(ring, "static") != [None]
    ann = ring.owner(b"ann")
    assert ann is not None
    assert ann.weight == 1.0
    key = ring.key_of(ann)
    assert key is not None
    assert key.max_open == 3
    write_keys(file, {})
    assert {tenant.name for tenant in ring.reload()} == {"ann", "carl"}
    assert opened(ring, "ann") == [None]


def test_the_same_name_with_another_key_is_another_key(file: Path) -> None:
    ring = KeyRing((), str(file))
    write_keys(file, {"ann": {"sha256": digest_of(b"new").hex()}, "bob": {}})
    assert [tenant.name for tenant in ring.reload()] == ["ann"]
    assert opened(ring, "ann", "new") == [None, "ann"]


def test_each_kind_of_change_is_seen(tmp_path: Path) -> None:
    """A file written in place with its times set back, one that is replaced, and Kubernetes' link to a folder."""
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, key in ((first, "one"), (second, "two")):
        folder.mkdir()
        write_keys(folder / "keys.toml", {key: {}})
    data = tmp_path / "data"
    data.symlink_to(first)
    ring = KeyRing((), str(data / "keys.toml"))
    new = tmp_path / "new"
    new.symlink_to(second)
    os.replace(new, data)
    assert [tenant.name for tenant in ring.reload()] == ["one"]
    assert opened(ring, "two") == ["two"]
    before = (second / "keys.toml").stat()
    text = (second / "keys.toml").read_text()
    changed = text.replace('"two"', '"owt"').replace(digest_of(b"two").hex(), digest_of(b"owt").hex())
    (second / "keys.toml").write_text(changed)
    os.utime(second / "keys.toml", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [tenant.name for tenant in ring.reload()] == ["two"]


def test_a_bad_file_changes_nothing_and_is_told_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing((), str(file))
    file.write_text("no toml at all")
    with caplog.at_level(logging.ERROR):
        assert [ring.reload() for _ in range(3)] == [[]] * 3
        assert opened(ring, "ann", "bob") == ["ann", "bob"]
        [record] = caplog.records
        assert "API keys stay as they were" in record.message
        file.unlink()
        assert [ring.reload() for _ in range(3)] == [[]] * 3
        assert opened(ring, "ann", "bob") == ["ann", "bob"]
        assert len(caplog.records) == 2
    write_keys(file, {"bob": {}})
    assert [tenant.name for tenant in ring.reload()] == ["ann"]


def test_a_file_that_cannot_be_read_for_a_moment_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing((), str(file))
    write_keys(file, {"bob": {}})

    def no_descriptor_left(path: str) -> list[ApiKey]:
        raise KeyFileError("the key file cannot be read") from OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(key_ring, "read_keys", no_descriptor_left)
        assert ring.reload() == []
        assert opened(ring, "ann", "bob") == ["ann", "bob"]
    assert [tenant.name for tenant in ring.reload()] == ["ann"]


async def test_one_that_cannot_be_told_does_not_end_the_watch(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "LOOK_EVERY_S", 0.001)
    ring, told = KeyRing((), str(file)), asyncio.Event()

    def breaks_once(tenant: Tenant) -> None:
        if tenant.name == "ann":
            raise RuntimeError("no thread left")
        told.set()

    watching = asyncio.create_task(ring.watch(breaks_once))
    write_keys(file, {"bob": {}})
    while opened(ring, "ann") == ["ann"]:
        await asyncio.sleep(0.001)
    write_keys(file, {})
    await asyncio.wait_for(told.wait(), 30)
    watching.cancel()


async def test_a_watched_file_tells_of_keys_that_are_gone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "LOOK_EVERY_S", 0.001)
    ring = KeyRing((), str(file))
    gone: asyncio.Queue[Tenant] = asyncio.Queue()
    watching = asyncio.create_task(ring.watch(gone.put_nowait))
    for left, revoked in ((["bob"], "ann"), ([], "bob")):
        write_keys(file, {name: {} for name in left})
        assert (await gone.get()).name == revoked
    watching.cancel()


async def test_without_a_file_nothing_is_watched() -> None:
    await KeyRing(["k"]).watch(lambda _: None)


@pytest.mark.rule("S3")
def test_keys_are_compared_in_constant_time_and_all_of_them() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(KeyRing.owner)))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert calls.count("hmac.compare_digest") == 1
    # Its result is a filter of one pass over all keys: nothing else is compared, looked up or left early.
    [comparing] = [node for node in ast.walk(tree) if isinstance(node, ast.ListComp)]
    assert ast.unparse(comparing.generators[0].iter) == "self._held.values()"
    assert ast.unparse(comparing.generators[0].ifs[0]) == "hmac.compare_digest(offered, held.tenant.secret)"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.For | ast.While | ast.Dict)]


def test_a_file_that_cannot_be_held_to_revokes_all_the_same(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def none_called_eve(keys: Sequence[ApiKey]) -> None:
        if any(key.name == "eve" for key in keys):
            raise ValueError("there is an eve")

    ring = KeyRing((), str(file), none_called_eve)
    write_keys(file, {"bob": {"weight": 5.0}, "eve": {}})
    assert [tenant.name for tenant in ring.reload()] == ["ann"]
    assert opened(ring, "ann", "bob", "eve") == [None, "bob", None]
    assert [key.weight for key in ring.all_keys()] == [1.0]
    assert f"In {file} there is an eve." in caplog.text


def test_a_file_without_keys_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing((), str(file))
    write_keys(file, {})
    assert len(ring.reload()) == 2
    assert "nobody gets in" in caplog.text
