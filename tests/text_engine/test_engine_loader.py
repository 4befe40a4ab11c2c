"""Loading: what a folder may lack or have too much of, and what the operator may have mistyped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.text_engine.engine_driver import EngineDriver
from tests.tiny_models import save_model
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.device import settle_device
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine, settle_dtype

EVEN = list(range(0, 256, 2))


def folder_with(source: Path, target: Path, name: str, **changes: Any) -> Path:
    """A copy of the model with one JSON file changed."""
    folder = shutil.copytree(source, target / "model")
    values = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(values))
    return folder


def llama_of(vocab_size: int, folder: Path) -> Path:
    """With the byte tokenizer of 259 tokens, whatever the model's own vocabulary."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    return save_model(LlamaForCausalLM(config), folder)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_end_token_of_a_list_ends_but_not_before_min_tokens(
    tiny_models: dict[str, Path], tmp_path: Path, temperature: float
) -> None:
    folder = folder_with(tiny_models["llama"], tmp_path, "generation_config.json", eos_token_id=EVEN)
    driver = EngineDriver.load(folder, dtype="float32")
    sampling = SamplingParams(temperature=temperature, min_tokens=10, max_tokens=60, seed=1)
    ids = [driver.add([number], sampling) for number in range(6)]
    driver.run()
    answers = [driver.tokens(request_id) for request_id in ids]
    for tokens in answers:
        assert not set(tokens[:10]) & set(EVEN)
        assert len(tokens) > 10
        assert not set(tokens[10:-1]) & set(EVEN)
    assert sum(tokens[-1] in EVEN for tokens in answers) > 3


def test_without_a_generation_config_the_model_and_the_tokenizer_say_what_ends(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = folder_with(tiny_models["llama"], tmp_path, "config.json", eos_token_id=EVEN)
    (folder / "generation_config.json").unlink()
    driver = EngineDriver.load(folder, dtype="float32")
    assert driver.engine._end_token_ids == {*EVEN, 257}
    request_id = driver.add([1], SamplingParams(temperature=1.0, seed=1, max_tokens=60))
    driver.run()
    assert driver.tokens(request_id)[-1] in EVEN


def test_tokenizer_with_more_tokens_than_the_model(tmp_path: Path) -> None:
    driver = EngineDriver.load(llama_of(256, tmp_path), dtype="float32")
    encoder = driver.loaded.encoder
    assert encoder.vocab_size == 256
    with pytest.raises(InvalidRequestError):
        encoder.encode_text("</s>", max_tokens=10)
    request_id = driver.add(encoder.encode_text("hello", max_tokens=10), SamplingParams(min_tokens=5, max_tokens=9))
    driver.run()
    assert driver.answers[request_id].reasons == {0: ("length", None)}


def test_model_with_more_tokens_than_the_tokenizer(tmp_path: Path) -> None:
    driver = EngineDriver.load(llama_of(1000, tmp_path), dtype="float32")
    request_id = driver.add([5], SamplingParams(temperature=2.0, seed=1, max_tokens=40, ignore_eos=True))
    driver.run()
    tokens = driver.tokens(request_id)
    assert max(tokens) >= 259
    assert driver.text(request_id) == driver.loaded.encoder.decode(tokens)


def test_warm_up_leaves_nothing_behind(tiny_models: dict[str, Path]) -> None:
    phases: list[str] = []
    config = EngineConfig(device="cpu", max_model_len=64, measure_limits="never")
    loaded = load_engine(tiny_models["llama"], config, phases.append)
    load = loaded.engine.load()
    assert (load.running, load.waiting, load.open_requests) == (0, 0, 0)
    assert load.free_blocks == load.total_blocks
    assert load.steps > 0
    assert phases == ["loading weights", "loading the tokenizer", "checking the model", "warming up"]


def test_prefix_cache_can_be_switched_off(tiny_models: dict[str, Path]) -> None:
    for enabled in (True, False):
        driver = EngineDriver.load(tiny_models["llama"], dtype="float32", enable_prefix_caching=enabled)
        for _ in range(2):
            driver.add([7] * 50, SamplingParams(max_tokens=1))
            driver.run()
        assert bool(driver.engine.load().prefix_hit_tokens) == enabled


def test_gpu_memory_on_a_cpu_is_refused_before_anything_is_loaded(tiny_models: dict[str, Path]) -> None:
    phases: list[str] = []
    with pytest.raises(InvalidRequestError, match="--gpu-memory is for a GPU"):
        load_engine(tiny_models["llama"], EngineConfig(device="cpu", gpu_memory=0.5), phases.append)
    assert phases == []


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "meta", "mps", "cuda:99", "", "cpu:0:0"])
def test_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="device"):
        settle_device(name)


def test_devices() -> None:
    assert settle_device("cpu") == torch.device("cpu")
    assert settle_device("auto").type in ("cpu", "cuda")


def test_dtypes(tiny_models: dict[str, Path]) -> None:
    cpu, folder = torch.device("cpu"), tiny_models["llama"]
    assert settle_dtype("bfloat16", folder, cpu) == torch.bfloat16
    assert settle_dtype("auto", folder, cpu) == torch.float32
    with pytest.raises(InvalidRequestError, match=r"dtype .int8."):
        settle_dtype("int8", folder, cpu)


@pytest.mark.parametrize(("processor_has_it", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_dtype_of_a_half_precision_model_on_a_cpu(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processor_has_it: bool,
    expected: torch.dtype,
) -> None:
    folder = folder_with(tiny_models["llama"], tmp_path, "config.json", dtype="float16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor_has_it)
    assert settle_dtype("auto", folder, torch.device("cpu")) == expected
    assert settle_dtype("auto", folder, torch.device("cuda:0")) == torch.float16
