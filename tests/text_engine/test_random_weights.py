"""`--load-format dummy`: random weights in the shapes of a config, without any weight file, and nobody is deceived."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from transformers import PreTrainedModel

from tests.text_engine.decoder_kinds import DECODERS
from tests.text_engine.engine_driver import EngineDriver
from tests.text_engine.llama_family import FAMILY, make, qwen3
from tests.tiny_models import save_model
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.decoders import choice
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.decoders.llama_shape import NotFusable
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.random_model import random_hf_model
from vfastml.text_engine.decoders.random_tensors import RandomTensors
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.load_options import LoadOptions

CPU, META = torch.device("cpu"), torch.device("meta")
BF16, F32 = torch.bfloat16, torch.float32


@pytest.fixture
def bare(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A llama's folder without its weights."""
    return without_weights(tiny_models["llama"], tmp_path / "bare")


def without_weights(folder: Path, bare: Path) -> Path:
    bare.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (bare / path.name).write_bytes(path.read_bytes())
    return bare


def gemma() -> PreTrainedModel:
    return make(hf.Gemma2ForCausalLM, hf.Gemma2Config, head_dim=8, sliding_window=8)


def of(weights: LlamaWeights) -> dict[str, torch.Tensor]:
    layers = [(f"{number}.{name}", part) for number in (0, 1) for name, part in vars(weights.layer(number)).items()]
    ends = [("embedding", weights.embedding()), ("norm", weights.final_norm()), ("head", weights.lm_head())]
    return {name: tensor for name, tensor in (*layers, *ends) if tensor is not None}


@pytest.mark.parametrize("maker", FAMILY.values(), ids=FAMILY.keys())
def test_each_member_of_the_family_gets_the_shapes_of_its_config(
    tmp_path: Path, maker: Callable[[], PreTrainedModel]
) -> None:
    maker().save_pretrained(tmp_path / "whole")
    read = of(LlamaWeights.open(tmp_path / "whole", BF16))
    made = of(LlamaWeights.random(without_weights(tmp_path / "whole", tmp_path / "bare"), BF16, CPU))
    assert {name: (part.shape, part.dtype) for name, part in made.items()} == {
        name: (part.shape, part.dtype) for name, part in read.items()
    }
    for name, part in made.items():
        if name.endswith("norm"):
            assert bool((part == 1).all()), name
        else:
            assert 0.01 < float(part.float().std()) < 0.03, name
            assert abs(float(part.float().mean())) < 0.01, name


def test_the_same_each_time_and_different_for_each_tensor(bare: Path) -> None:
    weights, again = LlamaWeights.random(bare, F32, CPU), LlamaWeights.random(bare, F32, CPU)
    assert torch.equal(weights.layer(1).qkv, again.layer(1).qkv)
    assert torch.equal(weights.embedding(), weights.embedding_table())
    head = weights.lm_head()
    assert head is not None
    assert not torch.equal(head, weights.embedding())
    assert not torch.equal(weights.layer(0).qkv, weights.layer(1).qkv)
    query, key = weights.layer(0).qkv.split([48, 32])
    assert not torch.equal(query[:32], key)


def test_tensors_are_made_on_their_device_in_their_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for a GPU: whatever is made elsewhere, or in float32, shows."""
    tensors = RandomTensors({"a.weight": [3, 4], "norm.weight": [3]}, BF16, META)
    monkeypatch.setattr(torch, "Generator", lambda device: torch._C.Generator("cpu"))
    for name in ("a.weight", "norm.weight"):
        made = tensors.read(name)
        assert (made.device, made.dtype, list(made.shape)) == (META, BF16, tensors.kind(name)[1])
    assert tensors.kind("a.weight") == ("BF16", [3, 4])


def test_others_of_the_family_are_refused_as_ever(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    with pytest.raises(NotFusable, match="gemma2"):
        LlamaWeights.random(tmp_path, F32, CPU)


def test_model_of_transformers_is_made_in_its_dtype_and_leaves_the_generators_alone(tmp_path: Path) -> None:
    folder = without_weights(save_model(gemma(), tmp_path / "whole"), tmp_path / "bare")
    before = torch.random.get_rng_state()
    model, again = (random_hf_model(folder, device=CPU, dtype=BF16) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert {parameter.dtype for parameter in model.parameters()} == {BF16}
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert model.generation_config.eos_token_id == 257


@pytest.mark.parametrize("decoder", DECODERS)
def test_engine_generates_without_weight_files_and_says_that_they_are_random(
    bare: Path, caplog: pytest.LogCaptureFixture, decoder: str
) -> None:
    driver = EngineDriver.load(bare, dtype="float32", decoder=decoder, load_format="dummy", kv_cache_memory=1 << 20)
    request = driver.add([5, 6, 7], SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True))
    driver.run()
    assert len(driver.tokens(request)) == 4
    assert driver.loaded.decoder.endswith(", random weights")
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING and "RANDOM" in record.message]
    assert "--load-format dummy" in record.message


def test_other_families_are_made_by_transformers(tmp_path: Path) -> None:
    folder = without_weights(save_model(gemma(), tmp_path / "whole"), tmp_path / "bare")
    driver = EngineDriver.load(folder, dtype="float32", load_format="dummy", kv_cache_memory=1 << 20)
    assert driver.loaded.decoder == "hf, random weights"


def test_real_weights_are_called_by_their_decoder_alone(tiny_models: dict[str, Path]) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", decoder="hf", kv_cache_memory=1 << 20)
    assert driver.loaded.decoder == "hf"


def test_weights_that_are_there_are_not_read(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(choice, "load_hf_model")
    for decoder in ("hf", "fused-torch"):
        config = EngineConfig(load_format="dummy", decoder=decoder)
        made = load_decoder(tiny_models["qwen3"], config, LoadOptions(), name="tiny", device=CPU, dtype=F32)
        assert made.kind == decoder


def test_what_dummy_weights_do_not_go_with(bare: Path, tmp_path: Path) -> None:
    def load(folder: Path, options: LoadOptions, load_format: str = "dummy") -> None:
        load_decoder(folder, EngineConfig(load_format=load_format), options, name="tiny", device=CPU, dtype=F32)

    with pytest.raises(InvalidRequestError, match="--load-format dummy goes with no device_map"):
        load(bare, LoadOptions(device_map="auto"))
    with pytest.raises(InvalidRequestError, match="--load-format dummy goes with no device_map and no quantization"):
        load(bare, LoadOptions(quantization={"load_in_8bit": True}))
    with pytest.raises(InvalidRequestError, match="--load-format 'pt' is not known: use auto, dummy"):
        load(bare, LoadOptions(), "pt")
    model = qwen3()
    model.config.quantization_config = {"quant_method": "fp8"}
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="--load-format dummy makes no quantized weights"):
        load(tmp_path, LoadOptions())
