"""`vfastml keys wire`: what it makes, keeps and takes away."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prebuilt_apps.cli.keys_wire import main
from vfastml.engine.wire_keys import GatewayKeys, ServerKeys, read_public

pytestmark = pytest.mark.rule("S2")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments], prog="vfastml keys wire")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_makes_a_pair_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "wire"
    umask = os.umask(0)
    try:
        assert run(folder) == 0
    finally:
        os.umask(umask)
    assert sorted(contents(folder)) == [
        "gateway-main/gateway.key",
        "gateway-main/gateway.key_secret",
        "gateway-main/server-main.key",
        "server-main/gateway-main.key",
        "server-main/server.key",
        "server-main/server.key_secret",
    ]
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*")}
    assert {modes["gateway-main"], modes["server-main"], stat.S_IMODE(folder.stat().st_mode)} == {0o700}
    assert {modes["gateway.key_secret"], modes["server.key_secret"]} == {0o600}
    gateway = GatewayKeys(folder / "gateway-main").keys_for("tcp://model:6500")
    assert gateway is not None
    assert ServerKeys(folder / "server-main").name_of(gateway.own.public) == "main"
    out = capsys.readouterr().out
    assert f"--wire-keys {folder / 'gateway-main'}" in out
    assert gateway.own.secret.decode() not in out


def test_a_second_run_adds_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "wire", "--gateway", "ann")
    before = contents(tmp_path / "wire")
    assert run(tmp_path / "wire", "--gateway", "ann", "--gateway", "bob") == 0
    after = contents(tmp_path / "wire")
    assert before.items() <= after.items()
    assert "server-main/gateway-bob.key" in after
    assert "gateway ann: kept its key" in capsys.readouterr().out


def test_revoking_takes_a_gateway_off_every_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for server in ("one", "two"):
        run(tmp_path, "--server", server, "--gateway", "ann", "--gateway", "bob")
    old = read_public(tmp_path / "gateway-ann" / "gateway.key")
    capsys.readouterr()
    assert run(tmp_path, "--revoke", "ann") == 0
    assert "copies that are in use" in capsys.readouterr().out
    assert not [name for name in contents(tmp_path) if "ann" in name]
    for server in ("one", "two"):
        assert ServerKeys(tmp_path / f"server-{server}").name_of(old) is None
    run(tmp_path, "--server", "one", "--gateway", "ann")
    assert read_public(tmp_path / "gateway-ann" / "gateway.key") != old


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--revoke", "nobody"], 1, "no gateway 'nobody' is known"),
        (["--revoke", "ann", "--gateway", "bob"], 2, "--revoke goes without"),
        (["--gateway", "../ann"], 2, "a name has letters"),
        (["--server", ""], 2, "a name has letters"),
        (["--gatway", "ann"], 2, "did you mean --gateway?"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    try:
        got = run(tmp_path / "wire", *arguments)
    except SystemExit as stop:
        got = stop.code
    error = capsys.readouterr().err
    assert (got, error.count("\n")) == (status, 1)
    assert words in error
    assert not (tmp_path / "wire").exists()


def test_a_folder_of_others_and_a_damaged_secret_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "wire"
    run(folder)
    (folder / "server-main" / "server.key_secret").write_text("nonsense")
    assert run(folder) == 1
    assert "is no certificate" in capsys.readouterr().err
    assert (folder / "server-main" / "server.key_secret").read_text() == "nonsense"
    folder.chmod(0o755)
    assert run(folder) == 1
    assert "other users can enter" in capsys.readouterr().err
