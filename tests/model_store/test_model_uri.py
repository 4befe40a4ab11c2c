from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model
from vfastml.model_store.uri import parse_uri


@pytest.mark.parametrize(
    ("uri", "model_id"),
    [
        (DEFAULT_MODEL, "smollm2-135m-instruct"),
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("gpt2", "gpt2"),
        ("/models/my-llama", "my-llama"),
        ("/models/my-llama/", "my-llama"),
        ("./my-llama", "my-llama"),
        ("models/", "models"),
        ("a/b/c", "c"),
        ("~/x/../my-llama", "my-llama"),
        ("/models/Llama-3.Q4_K_M.gguf", "Llama-3.Q4_K_M"),
        ("tiny.GGUF", "tiny"),
    ],
)
def test_ids_come_from_the_text_alone(uri: str, model_id: str) -> None:
    assert parse_uri(uri).model_id == model_id


def test_a_dot_is_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-llama").mkdir()
    monkeypatch.chdir(tmp_path / "my-llama")
    assert parse_uri(".").model_id == "my-llama"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://bucket/model", "scheme s3:"),
        ("https://example.org/model", "scheme https:"),
        ("", "not a model uri"),
        ("two words", "not a model uri"),
        ("-org/name", "not a model uri"),
        ("builtin:gpt5", "no built-in model 'gpt5'"),
        ("./nowhere", "no folder ./nowhere"),
        ("/nowhere/x.gguf", "no file /nowhere/x.gguf"),
    ],
)
def test_what_cannot_be_a_model_is_refused(uri: str, said: str) -> None:
    with pytest.raises(ModelStoreError, match=said):
        resolve_model(uri)


def test_importing_the_package_stays_light() -> None:
    program = "import vfastml.model_store, sys; print({'torch', 'transformers', 'gguf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
