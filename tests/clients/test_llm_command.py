"""The command line `llm`, which finds the service in its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.plain_answer import MODEL, NUM_TOKENS, QUESTION, Capital, plain_text
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


def test_it_answers_and_keeps_count(service: Service, user_folder: Path) -> None:
    assert llm(user_folder, QUESTION, *options()).strip() == plain_text(service)
    [logged] = json.loads(llm(user_folder, "logs", "list", "--json"))
    assert logged["input_tokens"] == 37
    assert logged["output_tokens"] == 8


def test_schema(user_folder: Path) -> None:
    schema = json.dumps(Capital.model_json_schema())
    Capital.model_validate_json(llm(user_folder, QUESTION, *options(40), "--schema", schema))


def test_conversation_goes_on(service: Service, user_folder: Path) -> None:
    first = llm(user_folder, QUESTION, *options(), "--no-stream").strip()
    second = llm(user_folder, "And of Japan?", "-c", *options(), "--no-stream").strip()
    assert first == plain_text(service)
    messages = [(QUESTION, "user"), (first, "assistant"), ("And of Japan?", "user")]
    assert second == plain_text(service, messages=[{"role": role, "content": text} for text, role in messages])
