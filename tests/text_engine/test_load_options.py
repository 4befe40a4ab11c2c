"""`model_load_kwargs`: each option acts or is refused, and where a model's parts lie."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, QuantoConfig

from tests.oracle import assert_same_tokens, generate, load_oracle
from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError, UnsupportedError, VFastMLError
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.decoders.hf_decoder import HFDecoder, load_hf_model
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.load_options import LoadOptions, engine_config_for, load_options

CPU = torch.device("cpu")
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
ON_DISK = {"model.layers.1": "disk", "model.layers.2": "disk", "lm_head": "disk"}
PARTLY_ON_DISK = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.norm": "cpu",
    **ON_DISK,
}


def driver_of(folder: Path, given: dict[str, Any], **config: Any) -> EngineDriver:
    options = load_options(given)
    config = {"kv_cache_memory": 20_000_000, **config}
    settled = engine_config_for(EngineConfig(**config), "auto", options)
    return EngineDriver(load_engine(folder, settled, lambda phase: None, options=options))


# -- what may be said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, LoadOptions()),
        ({"dtype": None, "device_map": None, "load_in_8bit": False, "load_in_4bit": None}, LoadOptions()),
        ({"dtype": "bfloat16"}, LoadOptions(dtype="bfloat16")),
        ({"dtype": torch.bfloat16}, LoadOptions(dtype="bfloat16")),
        ({"torch_dtype": "torch.float16"}, LoadOptions(dtype="float16")),
        ({"torch_dtype": torch.float32, "dtype": "float32"}, LoadOptions(dtype="float32")),
        ({"token": "t", "revision": "main"}, LoadOptions(token="t", revision="main")),
        ({"device_map": "balanced"}, LoadOptions(device_map="balanced")),
        (
            {"device_map": {"": 0}, "max_memory": {"0": "10GiB", 1: 5, "cpu": "1GiB"}},
            LoadOptions(device_map={"": 0}, max_memory={0: "10GiB", 1: 5, "cpu": "1GiB"}),
        ),
        ({"quantization_config": {"quant_method": "awq"}}, LoadOptions(quantization={"quant_method": "awq"})),
    ],
)
def test_known_options(given: dict[str, Any], expected: LoadOptions) -> None:
    assert load_options(given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trust_remote_code": True}, r"'trust_remote_code' \(code of a model's repository is never run\); known are"),
        ({"attn_implementation": "eager"}, r"'attn_implementation' \(attention always runs over"),
        ({"low_cpu_mem_usage": True}, "'low_cpu_mem_usage'; known are dtype, torch_dtype, token, revision"),
        ({"dtype": "float16", "torch_dtype": torch.float32}, "contradict"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_8bit and load_in_4bit contradict"),
        ({"load_in_4bit": True, "quantization_config": {"load_in_4bit": True}}, "contradict"),
        ({"device_map": "everywhere"}, "device_map must be auto, balanced"),
        ({"device_map": "cpu"}, "model_device"),
        ({"device_map": 0}, "device_map must be"),
        ({"max_memory": {"cpu": "1GiB"}}, "max_memory must be a dict, and goes with a device_map"),
        ({"device_map": "auto", "max_memory": "1GiB"}, "max_memory must be a dict"),
        ({"token": 5}, "token must be a string"),
        ({"revision": b"main"}, "revision must be a string"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(VFastMLError, match=words):
        load_options(given)


@pytest.mark.rule("S10")
def test_token_is_not_shown() -> None:
    assert "secret" not in repr(load_options({"token": "secret", "revision": "main"}))


def test_own_arguments_go_before_the_config() -> None:
    config = EngineConfig(device="cpu", dtype="float16")
    assert engine_config_for(config, "auto", LoadOptions()) == config
    settled = engine_config_for(config, "cuda:0", LoadOptions(dtype="bfloat16"))
    assert (settled.device, settled.dtype) == ("cuda:0", "bfloat16")
    for device, own in (("cpu", "auto"), ("auto", "cpu")):
        with pytest.raises(InvalidRequestError, match="contradict"):
            engine_config_for(EngineConfig(device=own), device, LoadOptions(device_map="auto"))


# -- where the parts lie


@pytest.mark.parametrize(
    "given",
    [
        {"device_map": {"": "cpu"}},
        {"device_map": PARTLY_ON_DISK},
        {"device_map": {"": "disk"}},
    ],
    ids=["cpu", "a part on disk", "disk"],
)
def test_model_of_a_device_map_generates_the_same(tiny_models: dict[str, Path], given: dict[str, Any]) -> None:
    oracle, prompt = load_oracle(tiny_models["llama"]), [5, 6, 7, 8]
    driver = driver_of(tiny_models["llama"], given, dtype="float32")
    request_id = driver.add(prompt, SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True))
    driver.run()
    assert_same_tokens(oracle, prompt, driver.tokens(request_id), generate(oracle, prompt, 10, ignore_eos=True))
    assert driver.loaded.device == "cpu"


def test_what_is_on_disk_is_not_in_memory(tiny_models: dict[str, Path]) -> None:
    options = load_options({"device_map": PARTLY_ON_DISK})
    model = load_hf_model(tiny_models["llama"], name="llama", device=CPU, dtype=torch.float32, options=options)
    away = {name for name, weight in model.named_parameters() if weight.device.type == "meta"}
    assert away
    assert all(name.startswith(tuple(ON_DISK)) for name in away)
    assert {shape.device for shape in HFDecoder(model).kv_shapes} == {CPU}


def test_what_picks_the_logits_of_a_spread_model_lies_on_no_device(tiny_models: dict[str, Path]) -> None:
    """On two GPUs an index tensor would be on another one than what it picks from."""
    model = load_hf_model(tiny_models["llama"], name="llama", device=CPU, dtype=torch.float32, options=load_options({}))
    model.hf_device_map = {"model": 0, "lm_head": 1}
    decoder = HFDecoder(model)
    seen: list[Any] = []
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given.get("logits_to_keep")), with_kwargs=True)
    check_decoder(decoder)
    assert {type(picked) for picked in seen} == {list, type(None)}  # None: the model's own way, to compare with


@pytest.mark.skipif(torch.cuda.is_available(), reason="the map would go to the GPU")
def test_auto_is_the_cpu_where_there_is_no_gpu(tiny_models: dict[str, Path]) -> None:
    driver = driver_of(tiny_models["llama"], {"device_map": "auto", "max_memory": {"cpu": "1GiB"}}, dtype="float32")
    assert (driver.loaded.device, driver.loaded.dtype) == ("cpu", "float32")


def test_device_map_that_does_not_fit_is_one_sentence(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match="device_map does not fit llama: ") as caught:
        driver_of(tiny_models["llama"], {"device_map": {"": "abacus"}})
    assert "\n" not in caught.value.message


# -- quantized weights


@pytest.mark.parametrize("name", ["load_in_8bit", "load_in_4bit"])
def test_without_bitsandbytes_it_is_said_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UnsupportedError, match=rf"{name} needs .* `pip install bitsandbytes`"):
        load_options({name: True})


@pytest.mark.parametrize(
    ("quantization", "package"),
    [({"quant_method": "quanto"}, "optimum-quanto"), (QuantoConfig(), "optimum-quanto")],
    ids=["dict", "config of transformers"],
)
def test_quantization_that_lacks_its_package_is_one_sentence(
    tiny_models: dict[str, Path], quantization: Any, package: str
) -> None:
    with pytest.raises(
        UnsupportedError, match=f"^llama cannot be loaded with quantized weights: .*{package}"
    ) as caught:
        driver_of(tiny_models["llama"], {"quantization_config": quantization})
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"quant_method": "awq", "bits": 4}, "cannot be loaded with quantized weights: .*pip install"),
        ({"quant_method": "gptq", "bits": 4}, "cannot be loaded with quantized weights: "),
        ({"quant_method": "aqlm"}, "cannot be loaded with quantized weights: .*pip install"),
        ({"quant_method": "hqq"}, "cannot be loaded with quantized weights: "),
        ({"quant_method": "homeopathy"}, r"does not know \(homeopathy\)"),
        ({"bits": 4}, r"does not know \(None\)"),
    ],
)
def test_model_that_is_stored_quantized_is_refused_in_one_sentence(
    tiny_models: dict[str, Path], tmp_path: Path, stored: dict[str, Any], words: str
) -> None:
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stored}))
    with pytest.raises(UnsupportedError, match=words) as caught:
        driver_of(folder, {})
    assert "small" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.skipif(not HAS_BITSANDBYTES, reason="bitsandbytes is not installed")
@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"load_in_8bit": True}, "Linear8bitLt"),
        ({"load_in_4bit": True}, "Linear4bit"),
        ({"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": "auto"}, "Linear8bitLt"),
    ],
    ids=["8 bit", "4 bit", "config of transformers"],
)
def test_quantized_builtin_model_knows_its_capitals(builtin_folder: Path, given: dict[str, Any], kind: str) -> None:
    driver = driver_of(builtin_folder, given)
    model = driver.engine._runner._decoder.model  # type: ignore[attr-defined]
    assert kind in {type(module).__name__ for module in model.modules()}
    prompt = driver.loaded.encoder.encode_messages("What is the capital of France?", max_tokens=100)
    request_id = driver.add(prompt, SamplingParams(temperature=0.0, max_tokens=8))
    driver.run()
    assert "Paris" in driver.text(request_id)
