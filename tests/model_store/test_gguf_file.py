from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from gguf import GGUFWriter, TokenType

from vfastml.model_store import ModelStoreError, resolve_model

WIDTH, HEADS, LAYERS, HIDDEN = 16, 2, 1, 32
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def byte_alphabet() -> list[str]:
    """How GPT-2 vocabularies write the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in letters)}
    return [letters[byte] for byte in range(256)]


TOKENS = ["<end>", "<begin>", "<turn>", *byte_alphabet(), "12", "ab"]


def write_llama(path: Path, architecture: str = "llama") -> Path:
    """A one-layer Llama with byte tokens and random float32 weights."""
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(TOKENS) - 3))
    writer.add_token_merges(["1 2", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, shape in shapes().items():
        writer.add_tensor(name, numpy.random.default_rng(0).normal(size=shape).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes() -> dict[str, tuple[int, ...]]:
    layer: dict[str, tuple[int, ...]] = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    layer |= dict.fromkeys(["attn_q", "attn_k", "attn_v", "attn_output"], (WIDTH, WIDTH))
    layer |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    outer: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    return outer | {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items()}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def test_a_gguf_file_becomes_a_folder_once(tmp_path: Path, cache: Path) -> None:
    uri = str(write_llama(tmp_path / "tiny.Q8.gguf"))
    phases: list[str] = []

    stored = resolve_model(uri, progress=lambda phase, fraction: phases.append(phase))

    assert stored.model_id == "tiny.Q8"
    assert stored.folder.parent == cache
    assert phases == ["converting tiny.Q8"]
    assert resolve_model(uri, progress=lambda phase, fraction: phases.append(phase)) == stored
    assert len(phases) == 1
    os.utime(uri, ns=(0, 0))
    assert resolve_model(uri).folder != stored.folder


def test_the_folder_is_what_transformers_loads(tmp_path: Path, cache: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(str(write_llama(tmp_path / "tiny.gguf"))).folder
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    assert model.dtype == torch.bfloat16
    assert model(torch.tensor([[1, 5, 7]])).logits.shape == (1, 3, len(TOKENS))
    assert read(folder / "config.json")["rms_norm_eps"] == 1e-5
    assert "quantization_config" not in read(folder / "config.json")
    assert read(folder / "generation_config.json")["eos_token_id"] == [0, 2]
    assert tokenizer.model_max_length == 64
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a²"}], tokenize=False) == "a²"
    assert tokenizer.tokenize("ab12") == ["ab", "1", "2"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<begin>", "<end>")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~_umask()}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ModelStoreError, match=r"tiny\.gguf cannot be converted"):
        resolve_model(str(tmp_path / "tiny.gguf"))
    assert [path.name[-5:] for path in cache.iterdir()] == [".lock"]


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ModelStoreError, match=r"tiny.gguf cannot be converted \(.*llamoid.*not supported"):
        resolve_model(str(write_llama(tmp_path / "tiny.gguf", architecture="llamoid")))
