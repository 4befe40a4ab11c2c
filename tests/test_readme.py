"""The README's code runs as it is written, and its file tree is the tree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service import Service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def only(found: list[str]) -> str:
    assert len(found) == 1
    return found[0]


def test_curl_streams_an_answer(builtin_service: Service) -> None:
    command = only([block for block in blocks("bash") if block.startswith("curl")])
    command = command.replace("http://127.0.0.1:8080", builtin_service.url)
    output = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True).stdout
    events = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "Paris" in "".join(chunk.get("content", "") for chunk in chunks)


def test_python_of_the_client(builtin_service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    code = only([block for block in blocks("python") if "OpenAI" in block])
    exec(compile(code.replace("http://127.0.0.1:8080", builtin_service.url), "README.md", "exec"), {})
    assert "Paris" in capsys.readouterr().out


def test_python_of_the_engine_alone(builtin_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(only([block for block in blocks("python") if "LLM(" in block]), "README.md", "exec"), {})
    france, japan = capsys.readouterr().out.splitlines()
    assert "Paris" in france
    assert "Tokyo" in japan


def test_python_of_a_server() -> None:
    namespace: dict[str, object] = {}
    code = only([block for block in blocks("python") if "OneShotModelServer" in block])
    exec(
        compile(code.replace("# Doubler", "server = Doubler").replace(".run_forever()", ""), "README.md", "exec"),
        namespace,
    )
    server = namespace["server"]
    server.load()  # type: ignore[attr-defined]
    assert server.forward([1, 2]) == [2, 4]  # type: ignore[attr-defined]


def test_programs_it_names_exist() -> None:
    for module in re.findall(r"python -m ([\w.]+)", README):
        help_text = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert "--log-level" in help_text


def test_commands_it_names_exist() -> None:
    from prebuilt_apps.commands import COMMANDS

    assert set(re.findall(r"`(?:\.venv/bin/)?vfastml ([a-z-]+)", README)) == {command.name for command in COMMANDS}


def test_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z][a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_file_tree_is_complete() -> None:
    tree = README.split("## Where things are")[1]
    for folder in (".", "engine", "entrypoints", "models_servers", "text_engine"):
        for path in (ROOT / "vfastml" / folder).glob("*.py"):
            assert path.name == "__init__.py" or path.name in tree, path
    for name in re.findall(r"^ {4}(\w+\.py)", tree, re.MULTILINE):
        assert list((ROOT / "vfastml").rglob(name)), name
