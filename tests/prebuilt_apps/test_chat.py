"""`vfastml chat`: with the real service, and with one that answers as a test wants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prebuilt_apps.cli.__main__ import main
from tests.e2e.service import Service, free_port, wait_until
from tests.models_servers.started_process import ROOT
from tests.prebuilt_apps.scripted_server import ScriptedServer
from tests.prebuilt_apps.terminal_process import CTRL_C, CTRL_D, TerminalProcess

CHAT = (sys.executable, "-m", "prebuilt_apps.cli", "chat")
MODEL = "smollm2-135m-instruct"
PROMPT = "\n> "


def outcome(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [*CHAT, *arguments]
    return subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=100, check=False)


# -- the real service


def test_one_answer(builtin_service: Service) -> None:
    done = outcome("--url", builtin_service.url, "--temperature", "0", "What is the capital", "of France?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout
    assert done.stdout.endswith("\n")


def test_lines_of_a_pipe_are_turns_of_one_conversation(builtin_service: Service) -> None:
    def answers(lines: str) -> list[str]:
        done = outcome("--url", builtin_service.url, "--temperature", "0", "--max-tokens", "8", lines=lines)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    [name, again] = answers("My name is Bartholomew.\n\nWhat is my name?\n")
    [alone] = answers("What is my name?\n/exit\nnever asked\n")
    assert answers("My name is Bartholomew.\n/reset\nWhat is my name?") == [name, alone]
    assert again != alone, "the history was sent"


def test_what_is_typed_and_ctrl_c(builtin_service: Service) -> None:
    with TerminalProcess(*CHAT, "--url", builtin_service.url, "--temperature", "0") as chat:
        chat.wait_for(PROMPT)
        place = chat.type("What is the capital of France? Answer with one word.\n")
        assert "Paris" in chat.wait_for(PROMPT, place)
        place = chat.type("Write a story of two thousand words about the sea.\n")
        wait_until(lambda: builtin_service.load()["running"] == 1, 30, "an answer under way")
        chat.wait_for(" the ", place + 60)
        place = chat.type(CTRL_C)
        assert "again leaves" not in chat.wait_for(PROMPT, place), "there was an answer to stop"
        wait_until(builtin_service.all_free, 10, "the request is cancelled")
        place = chat.type("half a line" + CTRL_C)
        assert "Ctrl-C again leaves." in chat.wait_for(PROMPT, place)
        place = chat.type("/reset\n")
        chat.wait_for("> ", place + len("/reset\r\n"))
        place = chat.type("/help\n")
        assert "/reset forgets" in chat.wait_for(PROMPT, place)
        place = chat.type(CTRL_C)
        chat.wait_for(PROMPT, place)
        chat.type(CTRL_C)
        assert chat.status() == 0
        assert "Traceback" not in chat.output


@pytest.mark.parametrize("leave", ["/exit\n", CTRL_D])
def test_leaving(builtin_service: Service, leave: str) -> None:
    with TerminalProcess(*CHAT, "--url", builtin_service.url) as chat:
        chat.wait_for(PROMPT)
        chat.type(leave)
        assert chat.status() == 0


def test_unknown_model_is_the_servers_sentence(builtin_service: Service) -> None:
    done = outcome("--url", f"{builtin_service.url}/v1/", "--model", "gpt-4", "Hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vfastml chat: The model does not exist: GET /v1/models names those there are.\n"
    in_a_pipe = outcome("--url", builtin_service.url, "--model", "gpt-4", lines="Hi\n")
    assert (in_a_pipe.returncode, in_a_pipe.stderr) == (1, done.stderr)


# -- a service that answers as a test wants


def test_what_is_sent(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    server.stream("Hi", "\n")
    monkeypatch.setenv("VFASTML_API_KEY", "k1,k2")
    monkeypatch.setenv("VFASTML_URL", f"{server.url}/v1")
    arguments = ["--model", "m", "--system", "s", "--temperature", "0.5", "--max-tokens", "7"]
    assert main(["chat", *arguments, "a", "b", "--", "--c"]) == 0
    assert capsys.readouterr().out == "Hi\n"
    path, headers, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer k1"
    assert body == {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a b --c"}],
        "stream": True,
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 7,
    }


def test_what_is_not_said_is_not_sent(server: ScriptedServer, capsys: Any) -> None:
    server.stream("Hi")
    assert main(["chat", "--url", server.url, "x"]) == 0
    assert capsys.readouterr().out == "Hi\n"
    _, headers, body = server.asked[-1]
    assert "authorization" not in headers
    assert sorted(body) == ["messages", "stream"]


def test_a_model_uri_asks_a_service_for_that_model(server: ScriptedServer) -> None:
    server.stream("Hi")
    assert main(["chat", "--url", server.url, "--model-uri", "org/name", "x"]) == 0
    assert server.asked[-1][2]["model"] == "org/name"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "An API key is required."),
        (404, "The model 'x' does not exist."),
        (503, "The model is still loading."),
    ],
)
def test_errors_are_the_servers_sentence(server: ScriptedServer, capsys: Any, status: int, message: str) -> None:
    server.refuse(status, f"{message}\x1b[31m\nsecond line")
    assert main(["chat", "--url", server.url, "x"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"vfastml chat: {message}\\x1b[31m second line\n"


def test_an_error_in_the_middle_comes_after_what_was_said(server: ScriptedServer, capsys: Any) -> None:
    server.stream("so far", end='data: {"error": {"message": "The model server is gone."}}\n\n')
    assert main(["chat", "--url", server.url, "x"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("so far\n", "vfastml chat: The model server is gone.\n")


def test_something_else_than_a_service(server: ScriptedServer, capsys: Any) -> None:
    server.body = b"<html>hello</html>"
    assert main(["chat", "--url", server.url, "x"]) == 1
    server.status = 404
    assert main(["chat", "--url", server.url, "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "vfastml chat: The connection ended before the answer did."
    assert "HTTP status 404" in lines[1]


def test_model_output_cannot_drive_the_terminal(server: ScriptedServer, capsys: Any) -> None:
    server.stream("\x1b]0;title", "\x07\r", "\udce9")
    assert main(["chat", "--url", server.url, "x"]) == 0
    assert capsys.readouterr().out == "\\x1b]0;title\\x07\\x0d?\n"


def test_a_pipe_goes_on_after_an_error_and_ends_with_1(server: ScriptedServer) -> None:
    server.refuse(503, "Loading.")
    done = outcome("--url", server.url, lines="a\nb\n")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["vfastml chat: Loading."] * 2


def test_input_that_is_not_text(server: ScriptedServer) -> None:
    server.stream("Hi")
    done = subprocess.run([*CHAT, "--url", server.url], cwd=ROOT, input=b"\xff?\n", capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert server.asked[-1][2]["messages"][0]["content"] == "\ufffd?"
    done = subprocess.run([*CHAT, "--url", server.url, b"\xff?"], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert server.asked[-1][2]["messages"][0]["content"] == "??"


# -- no service


def test_nobody_at_a_given_url_is_one_line(capsys: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["chat", "--url", url, "x"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vfastml chat: Nothing answers at {url}")
    assert "vfastml serve" in line


def test_a_name_needs_a_service(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(free_port()))
    assert main(["chat", "--model", "m", "x"]) == 1
    assert "--model-uri" in capsys.readouterr().err


def test_without_a_service_the_model_is_loaded_here(builtin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(port))
    done = outcome("--temperature", "0", "--max-tokens", "12", lines="What is the capital of France?\nAnd of Italy?\n")
    assert done.returncode == 0
    assert "Paris" in done.stdout
    assert "Rome" in done.stdout
    said = done.stderr.splitlines()
    assert said[0] == (
        f"vfastml chat: nobody listens at http://127.0.0.1:{port}: loading builtin:{MODEL} in this process"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("uri", ["builtin:nothing", "./nowhere"])
def test_a_model_that_cannot_be_loaded_here(uri: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(free_port()))
    assert main(["chat", "--model-uri", uri, "x"]) == 1
    _, line = capsys.readouterr().err.splitlines()
    assert line.startswith("vfastml chat: There is no ")
