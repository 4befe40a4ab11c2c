"""The command line `llm`, which finds the service in its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.plain_answer import MODEL, NUM_TOKENS, QUESTION, Capital, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = pytest.mark.clients

MODELS = """
- model_id: smol
  model_name: {model}
  api_base: {url}/v1
  supports_schema: true
  supports_tools: true
"""


@pytest.fixture
def user_folder(service: Service, tmp_path: Path) -> Path:
    """Where `llm` keeps what its user has told it."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(model=MODEL, url=service.url))
    return tmp_path


def llm(user_folder: Path, *arguments: str) -> str:
    """What it printed."""
    command = [str(Path(sys.executable).with_name("llm")), *arguments]
    environment = {**os.environ, "LLM_USER_PATH": str(user_folder)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(max_tokens: int = NUM_TOKENS) -> list[str]:
    return ["-m", "smol", "-o", "temperature", "0", "-o", "max_tokens", str(max_tokens)]


def test_conversation_and_its_log(service: Service, user_folder: Path) -> None:
    first = llm(user_folder, QUESTION, *options()).strip()
    assert first == plain_text(service)
    second = llm(user_folder, "And of Japan?", "-c", *options(), "--no-stream").strip()
    turns = [("user", QUESTION), ("assistant", first), ("user", "And of Japan?")]
    answer = plain_answer(service, messages=[{"role": role, "content": text} for role, text in turns])
    assert second == answer["choices"][0]["message"]["content"]
    logged = json.loads(llm(user_folder, "logs", "list", "--json"))[-1]
    assert logged["response"] == second
    assert logged["input_tokens"] == answer["usage"]["prompt_tokens"]
    assert logged["output_tokens"] == answer["usage"]["completion_tokens"]


def test_schema(user_folder: Path) -> None:
    schema = json.dumps(Capital.model_json_schema())
    Capital.model_validate_json(llm(user_folder, QUESTION, *options(40), "--schema", schema))
