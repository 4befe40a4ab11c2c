"""S9: a folder with a model's name and an attacker's files in it. What is data is read, what is code is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.security.sources import PRODUCT, calls_of, name_of, tree
from vfastml.text_engine.prompt_encoder import load_prompt_encoder

POISON = "import pathlib\npathlib.Path({canary!r}).write_text('ran')\n\n\nclass Evil:\n    pass\n"


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A whole model; code beside it would write a file `canary` when it is imported."""
    shutil.copytree(tiny_models["llama"], tmp_path / "model")
    poison = POISON.format(canary=str(tmp_path / "canary"))
    for name in ("poison.py", "tokenization_evil.py", "modeling_evil.py", "configuration_evil.py", "__init__.py"):
        (tmp_path / "model" / name).write_text(poison)
    return tmp_path / "model"


def change(folder: Path, name: str, **fields: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))


HARM: dict[str, tuple[str, dict[str, Any]]] = {
    "code of a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["poison.Evil", "poison.Evil"]}}),
    "a class of a module": ("tokenizer_config.json", {"tokenizer_class": "poison.Evil"}),
    "code elsewhere": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["someone/model--poison.Evil", None]}}),
    "code of a config": ("config.json", {"auto_map": {"AutoConfig": "poison.Evil"}}),
    "a template that is a path": ("tokenizer_config.json", {"chat_template": "../../../etc/passwd"}),
    "templates of odd names": (
        "tokenizer_config.json",
        {
            "chat_template": [
                {"name": "../evil", "template": "x"},
                {"name": "default", "template": "{{ messages[0].content }}"},
            ]
        },
    ),
    "a template that runs code": (
        "tokenizer_config.json",
        {"chat_template": "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}"},
    ),
}


@pytest.mark.rule("S9")
@pytest.mark.parametrize("name", HARM)
def test_no_code_of_the_folder_runs(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    file, fields = HARM[name]
    change(folder, file, **fields)
    outcome = ""
    try:
        outcome = load_prompt_encoder(folder, num_embeddings=256).render("hello")
    except Exception as error:  # what may not be is refused in one way or the other: here only that nothing ran counts
        outcome = str(error)
    assert outcome
    assert "root:" not in outcome
    assert not (folder.parent / "canary").exists()


@pytest.mark.rule("S9")
def test_weights_are_read_from_safetensors_alone() -> None:
    """By construction: whoever loads a model of transformers says so."""
    loads = [
        (name_of(path), call)
        for path in PRODUCT
        for called, call in calls_of(tree(path))
        if called.endswith(".from_pretrained") and ("AutoModel" in called or "model_class" in called)
    ]
    assert loads
    for name, call in loads:
        said = {keyword.arg for keyword in call.keywords}
        assert "gguf_file" in said or {"use_safetensors", "local_files_only"} <= said, name


@pytest.mark.rule("S9")
def test_nothing_is_loaded_without_saying_that_code_is_not_trusted() -> None:
    for path in PRODUCT:
        for called, call in calls_of(tree(path)):
            if called.startswith("Auto") and called.endswith((".from_pretrained", ".from_config")):
                assert "trust_remote_code" in {keyword.arg for keyword in call.keywords}, (name_of(path), called)
