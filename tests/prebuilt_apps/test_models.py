"""`vfastml models` and `vfastml models fetch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from prebuilt_apps.cli import models
from prebuilt_apps.cli.__main__ import main
from tests.e2e.service import Service, free_port
from tests.prebuilt_apps.scripted_server import ScriptedServer
from vfastml.model_store.listing import ListedModel

BUILTIN = "builtin:smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, and no service."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(free_port()))
    return tmp_path / "hub"


def put_into_hub_cache(cache: Path, hub_id: str, files: dict[str, bytes]) -> None:
    """As the hub's library lays it out, with files in place of links."""
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for name, content in files.items():
        blob = folder / "blobs" / name
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)


def listed(capsys: Any, *arguments: str, status: int = 0) -> list[list[str]]:
    assert main(["models", *arguments]) == status
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_builtin_model_that_is_cached(builtin_folder: Path, capsys: Any) -> None:
    [[uri, source, state, size]] = listed(capsys)
    assert (uri, source, state) == (BUILTIN, "built in", "cached")
    assert int(size) > (builtin_folder / "model.safetensors").stat().st_size


def test_builtin_model_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("VFASTML_CACHE", str(tmp_path / "empty"))
    [[uri, _, state, size]] = listed(capsys)
    assert (uri, state) == (BUILTIN, "to be downloaded")
    assert 80e6 < int(size) < 100e6
    assert not (tmp_path / "empty").exists(), "looking changes nothing"


def test_models_in_the_hubs_cache(hub_cache: Path, capsys: Any) -> None:
    whole = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"123"}
    put_into_hub_cache(hub_cache, "org/whole", whole)
    put_into_hub_cache(hub_cache, "org/config-only", {"config.json": b"{}"})
    assert listed(capsys)[1:] == [["org/whole", "hub", "cached", "7"]]


def test_what_a_service_serves(builtin_service: Service, capsys: Any) -> None:
    last = listed(capsys, "--url", builtin_service.url)[-1]
    assert last == ["smollm2-135m-instruct", builtin_service.url, "served", ""]


def test_a_name_cannot_drive_the_terminal(server: ScriptedServer, capsys: Any) -> None:
    server.body = json.dumps({"data": [{"id": "\x1b[31m\tx\n"}]}).encode()
    assert listed(capsys, "--url", server.url)[-1][0] == "\\x1b[31m x"


def test_a_service_that_was_asked_for_and_does_not_say(server: ScriptedServer, capsys: Any) -> None:
    server.refuse(401, "An API key is required.")
    assert main(["models", "--url", server.url]) == 1
    said = capsys.readouterr()
    assert said.err == "vfastml models: An API key is required.\n"
    assert said.out.startswith(BUILTIN)
    assert listed(capsys, "--url", f"http://127.0.0.1:{free_port()}", status=1)[0][0] == BUILTIN


def test_table(capsys: Any) -> None:
    models.print_table([ListedModel("org/[red]name", "hub", "cached", 5_000_000_000), ListedModel("m", "u", "served")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["MODEL", "SOURCE", "STATE", "SIZE"]
    assert lines[1].split() == ["org/[red]name", "hub", "cached", "5.0", "GB"]
    assert lines[2].split() == ["m", "u", "served"]


def test_fetch_prints_the_id(tiny_models: dict[str, Path], capsys: Any) -> None:
    assert main(["models", "fetch", str(tiny_models["llama"])]) == 0
    assert capsys.readouterr().out == "llama\n"
    assert main(["models", "fetch", BUILTIN]) == 0
    assert capsys.readouterr().out == "smollm2-135m-instruct\n"


def test_fetch_of_what_there_is_not(capsys: Any) -> None:
    assert main(["models", "fetch", "builtin:nothing"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("vfastml models fetch: There is no built-in model")
