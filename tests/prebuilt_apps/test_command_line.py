"""`vfastml` itself: its commands, their help, and what they need to be installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prebuilt_apps.cli.__main__ import main
from prebuilt_apps.commands import COMMANDS
from tests.e2e.service import free_port
from tests.models_servers.started_process import ROOT
from vfastml import __version__


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_alone_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    text = capsys.readouterr().err
    for command in COMMANDS:
        assert f"  {command.name} " in text
        assert command.summary in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"vfastml {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sevre"], "vfastml: error: unknown command 'sevre'; did you mean serve? (see --help)"),
        (["--verison"], "vfastml: error: unknown flag --verison; did you mean --version? (see --help)"),
        (["chat", "--modle", "x"], "vfastml chat: error: unknown flag --modle; did you mean --model? (see --help)"),
        (["chat", "--url", "localhost:80"], "vfastml chat: error: argument --url: expected http://HOST:PORT"),
        (["chat", "--url", "http://a..b"], "vfastml chat: error: argument --url: expected http://HOST:PORT"),
        (["health", "--timeout", "x"], "vfastml health: error: argument --timeout: seconds are a number"),
        (["models", "fetch"], "vfastml models fetch: error: the following arguments are required: URI"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom prebuilt_apps.cli.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print({'torch', 'transformers', 'fastapi', 'starlette', 'uvicorn', 'textual'} & set(sys.modules))"
    )
    done = run_code(code, command, "--help")
    assert done.stdout.startswith(f"usage: vfastml {command} ")
    assert done.stdout.endswith("\nset()\n")


@pytest.mark.parametrize(
    "arguments", [["models"], ["health", "--timeout", "0.1", "--model-server", "tcp://127.0.0.1:1"]]
)
def test_light_commands_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom prebuilt_apps.cli.__main__ import main\n"
        "main(sys.argv[1:])\nprint({'torch', 'transformers', 'fastapi'} & set(sys.modules))"
    )
    assert run_code(code, *arguments).stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("model-server", "torch", "model"),
        ("api-server", "fastapi", "api"),
        ("serve", "starlette", "api"),
    ],
)
def test_missing_extra_is_one_line(command: str, missing: str, extra: str) -> None:
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\n"
        "from prebuilt_apps.cli.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = run_code(code, command, "--log-level", "error")
    assert done.returncode == 1
    assert done.stderr == f"vfastml {command}: {missing} cannot be loaded: install vfastml[{extra}]\n"


@pytest.mark.parametrize("arguments", [["health", "--timeout", "1"], ["models"], ["models", "fetch", "builtin:no"]])
def test_a_misspelt_variable_is_warned_of(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(free_port()))
    monkeypatch.setenv("VFASTML_MAX_SEQS", "3")
    main(arguments)
    assert "warning: the variable VFASTML_MAX_SEQS is not known; did you mean" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "models"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.stderr == b""
    assert done.returncode == 141
