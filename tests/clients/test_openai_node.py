"""openai-node: a small program for each test, run by node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.plain_answer import MESSAGES, MODEL, NUM_TOKENS, QUESTION, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"),
]

ASKED: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": NUM_TOKENS}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, with the client installed in it."""
    folder = tmp_path_factory.mktemp("openai") / "node"
    shutil.copytree(Path(__file__).with_name("node"), folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def node(program: Path, *arguments: str) -> str:
    """What that program printed."""
    done = subprocess.run(["node", str(program), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(programs: Path, name: str, service: Service, asked: dict[str, Any]) -> Any:
    """What one of the programs of the folder found."""
    return json.loads(node(programs / name, f"{service.url}/v1", json.dumps(asked)))


def test_chat(service: Service, programs: Path) -> None:
    completion, expected = run(programs, "chat.mjs", service, ASKED), plain_answer(service)
    assert completion["choices"] == expected["choices"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert completion["usage"][name] == expected["usage"][name]


def test_stream(service: Service, programs: Path) -> None:
    found = run(programs, "stream.mjs", service, ASKED)
    *chunks, last = found["chunks"]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == plain_text(service)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == plain_answer(service)["usage"]["total_tokens"]
    [gathered] = found["gathered"]["choices"]
    assert gathered["message"]["content"] == plain_text(service)
    assert gathered["finish_reason"] == "stop"


def test_tool(service: Service, programs: Path) -> None:
    found = run(programs, "tool.mjs", service, ASKED | {"max_tokens": 60})
    [given] = found["called"]
    assert set(given) == {"city"}
    assert given["city"]
    _, call, answer = found["messages"]
    assert answer["role"] == "tool"
    assert answer["tool_call_id"] == call["tool_calls"][0]["id"]


def test_error(service: Service, programs: Path) -> None:
    error = run(programs, "error.mjs", service, ASKED | {"temperature": 3})
    assert (error["name"], error["status"]) == ("BadRequestError", 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", "temperature")
    assert error["requestID"].startswith("req-")
    assert "temperature" in error["message"]
    error = run(programs, "error.mjs", service, ASKED | {"model": "gpt-4o"})
    assert (error["name"], error["code"]) == ("NotFoundError", "model_not_found")


def test_program_of_the_documentation(service: Service, programs: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/clients.md").read_text()
    [code] = re.findall(r"```javascript\n(.*?)```", page, re.DOTALL)
    (programs / "documented.mjs").write_text(code.replace("http://127.0.0.1:8080", service.url))
    assert node(programs / "documented.mjs") == plain_text(service)


def test_responses(service: Service, programs: Path) -> None:
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": NUM_TOKENS}
    found = run(programs, "responses.mjs", service, asked)
    assert found["status"] == "completed"
    assert found["text"] == "".join(found["deltas"]) == plain_text(service)
    assert len(found["deltas"]) > 1
