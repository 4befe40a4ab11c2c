"""`python -m prebuilt_apps.openai`: two processes that start, serve and end as one."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from prebuilt_apps.openai import api_server, model_server
from prebuilt_apps.openai.__main__ import build_parser, main
from tests.e2e.service import free_port, wait_until
from tests.models_servers.started_process import PATIENCE_S, StartedProcess, complaints

APP = "prebuilt_apps.openai"


@contextmanager
def started(tmp_path: Path, model: Path, *arguments: object, port: int = 0) -> Iterator[StartedProcess]:
    """The app with a tiny model. A test that passes leaves no process of it behind."""
    rpc_port = free_port()
    given = ["--model-uri", model, "--kv-cache-memory", "2MB", "--dtype", "float32", "--rpc-port", rpc_port]
    with StartedProcess(tmp_path / "app.log", APP, *given, "--port", port, *arguments) as app:
        try:
            yield app
            assert app.process.poll() is not None
            assert processes_around(rpc_port) == []
        finally:
            for process in processes_around(rpc_port):
                process.kill()


def processes_around(rpc_port: int) -> list[psutil.Process]:
    """Those started with that port on their command line: no other app has it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []  # none: it has ended meanwhile
        if str(rpc_port) in arguments or f"tcp://127.0.0.1:{rpc_port}" in arguments:
            found.append(process)
    return found


def processes_of(app: StartedProcess) -> list[psutil.Process]:
    return psutil.Process(app.process.pid).children(recursive=True)


def process_of(app: StartedProcess, module: str) -> psutil.Process:
    [found] = [child for child in processes_of(app) if f"{APP}.{module}" in child.cmdline()]
    return found


def listening_at(url: str, app: StartedProcess) -> list[psutil.Process]:
    port = int(url.rpartition(":")[2])
    found = []
    for process in processes_of(app):
        sockets = [each for each in process.net_connections("tcp") if each.laddr.port == port]
        found += [process for each in sockets if each.status == psutil.CONN_LISTEN]
    return found


def url_of(app: StartedProcess) -> str:
    """Once the app says that it can be called."""
    app.wait_for("Try: curl")
    match = re.search(r"listens on (http://\S+)", app.output)
    assert match is not None
    return match[1]


def test_serves_and_ctrl_c_stops_both(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    with started(tmp_path, tiny_models["llama"], "--served-model-name", "tiny", "--measure-limits", "never") as app:
        url = url_of(app)
        body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] >= 1
        app.wait_for("tiny is ready after")  # its process may say so a little after the gateway
        output = app.output
        assert output.index("loading weights") < output.index("is ready: tiny") < output.index("Try: curl")
        assert [
            line
            for line in complaints(output)
            if not line.startswith(("VFastML listens", "Metrics for Prometheus", "Try: curl"))
        ] == []
        assert len(processes_of(app)) == 2
        app.process.send_signal(signal.SIGINT)
        assert app.status() == 0
        assert "Traceback" not in app.output


def test_several_gateways_serve_and_ctrl_c_stops_all(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    with started(tmp_path, tiny_models["llama"], "--workers", 2, "--api-key", "geheim") as app:
        url, key = url_of(app), {"x-api-key": "geheim"}
        wait_until(lambda: len(listening_at(url, app)) == 2, PATIENCE_S, "both listen")
        for _ in range(12):
            body = {"messages": "Hi", "max_tokens": 2}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=key, timeout=PATIENCE_S)
            assert answer.status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        processes = processes_of(app)
        assert len(processes) == 4, "a model server, a supervisor and two workers"
        assert "geheim" not in " ".join(word for process in processes for word in process.cmdline())
        app.process.send_signal(signal.SIGINT)
        assert app.status() == 0
        assert not any(process.is_running() for process in processes)
        assert [app.output.count(words) for words in ("VFastML listens", "Try: curl", "Traceback")] == [1, 1, 0]


def test_killed_gateway_stops_the_model_server(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    with started(tmp_path, tiny_models["llama"]) as app:
        url_of(app)
        process_of(app, "api_server").kill()
        assert app.status() == 128 + signal.SIGKILL
        assert "the gateway has ended with status 137" in app.output


def test_killed_model_server_is_started_again_behind_the_same_gateway(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    with started(tmp_path, tiny_models["llama"]) as app:
        url, gateway = url_of(app), process_of(app, "api_server")
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
            process_of(app, "model_server").kill()
            wait_until(lambda: http.get("/readyz").status_code == 503, PATIENCE_S, "the loss is noticed")
            assert [http.get(path).status_code for path in ("/livez", "/startupz")] == [200, 200]
            wait_until(lambda: http.get("/readyz").status_code == 200, PATIENCE_S, "a new one is ready")
            assert http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 3}).status_code == 200
        app.wait_for("is ready again")
        assert process_of(app, "api_server") == gateway
        app.process.send_signal(signal.SIGINT)
        assert app.status() == 0
        assert [app.output.count(words) for words in ("VFastML listens", "Try: curl", "Traceback")] == [1, 1, 0]


def test_both_are_told_how_long_a_step_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    class EndedAtOnce:
        """Instead of a process."""

        returncode = 0

        def __init__(self, command: list[str], **_: object) -> None:
            commands.append(command)

        def poll(self) -> int:
            return self.returncode

        terminate = kill = wait = poll

    monkeypatch.setattr(subprocess, "Popen", EndedAtOnce)
    assert main(["--max-step", "7", "--port", str(free_port()), "--rpc-port", str(free_port())]) == 1
    assert [command[command.index("--max-step") + 1] for command in commands] == ["7.0", "7.0"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_during_the_start_stops_both(tmp_path: Path, tiny_models: dict[str, Path], stop: signal.Signals) -> None:
    with started(tmp_path, tiny_models["llama"]) as app:
        app.wait_for("loading torch")
        assert len(processes_of(app)) == 2
        app.process.send_signal(stop)
        assert app.status() == 0
        assert "Traceback" not in app.output


@pytest.mark.parametrize("flag", ["--port", "--rpc-port"])
def test_taken_port_is_one_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"--port": "--rpc-port", "--rpc-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            main([flag, str(port), other, str(free_port())], prog="vfastml serve")
    assert stop.value.code == (
        f"vfastml serve: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        f"choose another {flag.replace('port', 'host')} or {flag}"
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 is open to other machines: give it --api-key-file, or say with"),
        (["--rpc-host", "0.0.0.0"], "--rpc-host 0.0.0.0 is open to other machines: give it --wire-keys, or"),
        (["--rpc-host", "::", "--api-key", "k"], "--rpc-host :: is open to other machines: give it --wire-keys, or"),
        (["--host", "a..b", "--api-key", "k"], "cannot listen on a..b port 8080: no host can have that name"),
        (["--rpc-host", "a..b", "--insecure"], "cannot listen on a..b port 6500: no host can have that name"),
    ],
)
def test_where_it_cannot_or_may_not_listen_is_said_before_anything_starts(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flag, port in (("port", 8080), ("rpc-port", 6500)):
        arguments = [*arguments, f"--{flag}", str(port if f"port {port}" in said else free_port())]
    monkeypatch.delattr(subprocess, "Popen")
    with pytest.raises(SystemExit) as stop:
        main(arguments, prog="vfastml serve")
    assert str(stop.value.code).startswith(f"vfastml serve: {said}")


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0", "--api-key", "k"], ["--host", "0.0.0.0", "--insecure"]])
def test_what_is_guarded_may_listen(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class StartedError(Exception):
        """Instead of a process."""

    def start(*_: object, **__: object) -> None:
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(StartedError):
        main([*arguments, "--port", str(free_port()), "--rpc-port", str(free_port())])


def test_variables_reach_both_and_keys_the_gateway_alone(
    tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("geheim2\n")
    monkeypatch.setenv("VFASTML_API_KEY", "overruled")
    monkeypatch.setenv("VFASTML_SERVED_MODEL_NAME", "from-a-variable")
    monkeypatch.setenv("VFASTML_MODEL_SERVER", "tcp://127.0.0.1:1")
    monkeypatch.setenv("VFASTML_MAX_SEQS", "3")
    with started(tmp_path, tiny_models["llama"], "--api-key", "geheim1", "--api-key-file", file) as app:
        url = url_of(app)
        for key, status in (("geheim1", 200), ("geheim2", 200), ("overruled", 401), ("", 401)):
            models = httpx.get(f"{url}/v1/models", headers={"x-api-key": key})
            assert models.status_code == status
            if status == 200:
                assert [model["id"] for model in models.json()["data"]] == ["from-a-variable", "llama"]
        servers = httpx.get(f"{url}/load", headers={"x-api-key": "geheim1"}).json()["servers"]
        assert [server["state"] for server in servers] == ["unseen", "live"], "the variable's server is kept"
        gateway, model_server = process_of(app, "api_server"), process_of(app, "model_server")
        assert "geheim1" not in " ".join([*gateway.cmdline(), *model_server.cmdline()])
        assert gateway.environ()["VFASTML_API_KEY"] == "geheim1"
        assert {"VFASTML_API_KEY", "VFASTML_API_KEY_FILE"} & set(model_server.environ()) == set()
        assert app.output.count("VFASTML_MAX_SEQS is not known") == 1
        app.process.send_signal(signal.SIGINT)
        assert app.status() == 0
        assert "geheim" not in app.output


def test_model_that_cannot_be_loaded_stops_the_gateway(tmp_path: Path) -> None:
    with started(tmp_path, tmp_path / "nowhere") as app:
        assert app.status() == 1
        assert "There is no folder" in app.output
        assert "Try: curl" not in app.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model-server", "http://x"], "bad model server endpoint"),
        (["--root-path", "llm"], "bad root path"),
        (["--cors-origin", "app.example"], "bad CORS origin"),
        (["--model-load-kwargs", '{"token": "geheim"}'], "put it into the variable HF_ACCESS_TOKEN"),
        (["--dtype", "float16", "--model-load-kwargs", '{"dtype": "float32"}'], "both name a dtype"),
    ],
)
def test_what_a_process_would_refuse_is_said_before_it_starts(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert "geheim" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["--host"],
        ["--rpc-port", "0"],
        ["--port", "-1"],
        ["--dtype", "int3"],
        ["--max-step", "0"],
        ["--api-key-file", "/nowhere"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_lists_the_flags_of_both() -> None:
    text = build_parser().format_help()
    for parser in (api_server.build_parser(), model_server.build_parser()):
        for flag in re.findall(r"--[a-z][a-z-]+", parser.format_usage()):
            assert flag in text
