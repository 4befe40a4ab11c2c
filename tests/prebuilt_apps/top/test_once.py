"""`vfastml top --once`: one picture, and what is said when there is none."""

from __future__ import annotations

import json

import pytest

from prebuilt_apps.cli.__main__ import main
from prebuilt_apps.cli.top.__main__ import default_url
from prebuilt_apps.cli.top.admin_client import neighbour_of
from tests.e2e.service import free_port
from tests.prebuilt_apps.scripted_server import ScriptedServer, running
from tests.prebuilt_apps.top.recorded_service import RECORDED, RecordedService, loading_server

Said = pytest.CaptureFixture[str]
STARTUPZ = b'{"status": "started", "phase": "ready", "progress": 1.0, "elapsed_s": 5.1}'


def once(url: str, *arguments: str) -> int:
    return main(["top", "--url", url, "--interval", "0.05", *arguments])


def complaint(capsys: Said, url: str, *arguments: str) -> str:
    """The one line that it leaves with."""
    assert once(url, *arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    return line.removeprefix("vfastml top: ")


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_picture(service: RecordedService, capsys: Said, arguments: tuple[str, ...]) -> None:
    service.servers = [loading_server()]
    assert once(service.url, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"vfastml 0.3.0 at {service.url} | ready | up ")
    assert lines[1] == "REQUESTS  running 7  waiting 1  held 0"
    assert "  errors 0/s  refused 0/s" in lines[2]
    assert lines[3].endswith("  prefix hits 62%")
    [model] = [line.split() for line in lines if line.startswith("smollm2-135m-instruct")]
    assert model[1:6] == ["ready", "7", "1", "█░░░░░░░░░", "1%"]
    assert model[-1] == "tcp://127.0.0.1:18490"
    assert any(line.startswith("-") and "loading weights 40%" in line for line in lines)
    assert any(line.split() == ["time", "per", "token", "625", "ms", "725", "ms", "748", "ms"] for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["key-8f39a63a", "key-6925f686"]
    assert max(map(len, lines)) <= 140


def test_json(service: RecordedService, capsys: Said) -> None:
    assert once(service.url, "--format", "json") == 0
    [line] = capsys.readouterr().out.splitlines()
    view = json.loads(line)
    recorded = json.loads((RECORDED / "load.json").read_text())["servers"][0]
    assert (view["ready"], view["version"]) == (True, "0.3.0")
    assert view["totals"]["running"] == recorded["load"]["running"]
    [server] = view["servers"]
    # One look is one more time what was recorded.
    assert server["generated_per_s"] * view["window_s"] == pytest.approx(recorded["load"]["generated_tokens"])
    assert sum(key["requests_per_s"] for key in view["keys"]) * view["window_s"] == pytest.approx(4)
    assert view["totals"]["requests_per_s"] * view["window_s"] == pytest.approx(4)


def test_the_key_is_sent(service: RecordedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFASTML_API_KEY", "of-an-operator,other")
    monkeypatch.setenv("VFASTML_ADMIN_URL", service.url)
    assert main(["top", "--interval", "0.05"]) == 0
    assert {headers.get("authorization") for _, headers, _ in service.asked} == {"Bearer of-an-operator"}


def test_nobody_there(capsys: Said) -> None:
    line = complaint(capsys, f"http://127.0.0.1:{free_port()}")
    assert line.startswith("Nothing answers at http://127.0.0.1:")
    assert line.endswith("Say with --admin-url where a gateway's admin listener answers.")


def test_a_url_that_is_none_is_refused_with_an_admin_listeners(capsys: Said) -> None:
    with pytest.raises(SystemExit):
        main(["top", "--admin-url", "localhost"])
    assert "such as http://127.0.0.1:8081" in capsys.readouterr().err


def test_no_key(server: ScriptedServer, capsys: Said) -> None:
    server.refuse(401, "An operator's API key is required.")
    assert complaint(capsys, server.url).startswith(f"{server.url} asks for an API key: give one that has admin = true")
    assert complaint(capsys, server.url, "--api-key", "sk-other").startswith(f"{server.url} refuses that key: ")


@pytest.mark.parametrize("status", [401, 404])
def test_the_port_of_users(server: ScriptedServer, capsys: Said, status: int) -> None:
    server.refuse(status, "No.")
    server.bodies_by_path["/startupz"] = 200, STARTUPZ
    assert complaint(capsys, server.url, "--api-key", "sk-x").startswith(
        f"{server.url} is where a gateway answers its users; its metrics are on its admin listener"
    )
    # The key was meant for that listener alone.
    assert all("authorization" in headers for _, headers, _ in server.asked)


def test_the_next_port_is_recommended_if_it_answers(capsys: Said) -> None:
    users, admin = _neighbours()
    users.bodies_by_path["/startupz"] = 503, STARTUPZ
    users.status = 404
    with running(users), running(admin):
        assert complaint(capsys, users.url).endswith(f"its metrics are on its admin listener: try --url {admin.url}.")
    assert [headers.get("authorization") for _, headers, _ in admin.asked] == [None]


@pytest.mark.parametrize(
    ("path", "status", "body", "words"),
    [
        ("/metrics", 404, b"", "answers with HTTP status 404 at /metrics: no admin listener of VFastML."),
        ("/metrics", 200, b"<html>hello</html>", "answers at /metrics is not of VFastML."),
        ("/metrics", 200, b"vllm:num_requests_running 1.0\n", "answers at /metrics is not of VFastML."),
        ("/load", 500, b"", "answers with HTTP status 500 at /load."),
        ("/load", 200, b"[]", "answers at /load is not of VFastML."),
    ],
)
def test_something_else_there(
    server: ScriptedServer, capsys: Said, path: str, status: int, body: bytes, words: str
) -> None:
    server.bodies_by_path["/metrics"] = 200, (RECORDED / "metrics.txt").read_bytes()
    server.bodies_by_path["/load"] = 200, (RECORDED / "load.json").read_bytes()
    server.bodies_by_path["/startupz"] = 404, b""
    server.bodies_by_path[path] = status, body
    assert complaint(capsys, server.url).endswith(words)


@pytest.mark.parametrize(
    ("url", "next_url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081"),
        ("https://[::1]:9", "https://[::1]:10"),
        ("https://service.example", None),
        ("http://a:65535", None),
        ("http://a:80/prefix", None),
    ],
)
def test_the_next_port(url: str, next_url: str | None) -> None:
    assert neighbour_of(url) == next_url


@pytest.mark.parametrize(
    ("variables", "port"),
    [({}, 8081), ({"PORT": "9000"}, 9001), ({"PORT": "9000", "ADMIN_PORT": "9100"}, 9100), ({"PORT": "0"}, 8081)],
)
def test_default_is_the_gateway_of_this_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], port: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VFASTML_{name}_NUMBER", value)
    assert default_url() == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--format", "xml"], ["--url", "8081"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["top", *arguments])
    assert stop.value.code == 2


def _neighbours() -> tuple[ScriptedServer, ScriptedServer]:
    """Two servers on ports that follow each other."""
    while True:
        first = ScriptedServer()
        try:
            return first, ScriptedServer(first.server_address[1] + 1)
        except OSError:
            first.server_close()
