"""Which decoder a model gets, what is said about it, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tests.text_engine.llama_family import make
from tests.tiny_models import save_model
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.decoders import choice
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.load_options import LoadOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
PLAIN = LoadOptions()


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""

    def load() -> None:
        raise NoKernels("there is no C++ compiler: install g++")

    monkeypatch.setattr(choice.cpu_kernels, "load", load)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, choice.__name__)
    return caplog


def load(
    folder: Path,
    options: LoadOptions = PLAIN,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Decoder:
    return load_decoder(folder, EngineConfig(**config), options, name="tiny", device=device, dtype=dtype)


def gemma(folder: Path) -> Path:
    return save_model(make(hf.Gemma2ForCausalLM, hf.Gemma2Config, head_dim=8, sliding_window=8), folder)


@pytest.mark.parametrize(
    ("asked", "kind"), [("hf", "hf"), ("fused-torch", "fused-torch"), ("fused", "fused-torch"), ("auto", "fused-torch")]
)
@pytest.mark.usefixtures("no_kernels")
def test_choice_for_a_llama_without_kernels(tiny_models: dict[str, Path], asked: str, kind: str) -> None:
    assert load(tiny_models["llama"], decoder=asked).kind == kind


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("asked", ["auto", "fused"])
def test_missing_kernels_are_a_warning(tiny_models: dict[str, Path], log: pytest.LogCaptureFixture, asked: str) -> None:
    load(tiny_models["llama"], decoder=asked)
    [record] = log.records
    assert (record.levelname, "install g++" in record.message) == ("WARNING", True)


@pytest.mark.parametrize("asked", ["hf", "fused-torch"])
def test_what_was_chosen_is_logged_in_one_line(
    tiny_models: dict[str, Path], log: pytest.LogCaptureFixture, asked: str
) -> None:
    load(tiny_models["llama"], decoder=asked)
    [record] = log.records
    own = "transformers' own modules: they were asked for"
    assert record.message == f"tiny runs on {own if asked == 'hf' else 'the fused decoder in torch'}"


def test_fused_decoder_loads_no_transformers_model(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(choice, "load_hf_model")
    assert load(tiny_models["llama"], decoder="fused-torch").name == "LlamaForCausalLM"


def test_other_families_run_on_transformers_and_the_log_says_why(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    assert load(gemma(tmp_path)).kind == "hf"
    assert "its type, gemma2, is another one" in log.text


@pytest.mark.parametrize("asked", [{"decoder": "fused"}, {"decoder": "fused-torch"}, {"quantization": "int8"}])
def test_other_families_are_refused_where_more_is_asked_for(tmp_path: Path, asked: dict[str, str]) -> None:
    flag, value = next(iter(asked.items()))
    with pytest.raises(UnsupportedError, match=f"gemma2, is another one. Leave out --{flag} {value}"):
        load(gemma(tmp_path), **asked)


def test_device_map_and_quantization_of_transformers_are_its_own_business(tiny_models: dict[str, Path]) -> None:
    spread = LoadOptions(device_map={"": "cpu"})
    assert load(tiny_models["llama"], spread).kind == "hf"
    with pytest.raises(UnsupportedError, match="device_map spreads it"):
        load(tiny_models["llama"], spread, decoder="fused")
    with pytest.raises(UnsupportedError, match="they are to quantize it"):
        load(tiny_models["llama"], LoadOptions(quantization={"load_in_8bit": True}), decoder="fused")


@pytest.mark.usefixtures("no_kernels")
def test_int8_needs_the_kernels(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedError, match="int8 needs the CPU kernels: there is no C\\+\\+ compiler: install g"):
        load(tiny_models["llama"], quantization="int8")
    for decoder in ("hf", "fused-torch"):
        with pytest.raises(UnsupportedError, match=f"leave out --decoder {decoder}, or the quantization"):
            load(tiny_models["llama"], quantization="int8", decoder=decoder)
    with pytest.raises(UnsupportedError, match="give --device cpu"):
        load(tiny_models["llama"], quantization="int8", device=GPU)


def test_what_contradicts_or_is_unknown(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match="both quantize"):
        load(tiny_models["llama"], LoadOptions(quantization={"load_in_8bit": True}), quantization="int8")
    with pytest.raises(InvalidRequestError, match=r"--decoder 'vllm' is not known: use auto, hf, fused, fused-torch"):
        load(tiny_models["llama"], decoder="vllm")
    with pytest.raises(InvalidRequestError, match=r"--quantization 'int4' is not known: use int8"):
        load(tiny_models["llama"], quantization="int4")


@pytest.mark.parametrize(("asked", "kind"), [("hf", "hf"), ("fused-torch", "fused-torch")])
def test_loaded_engine_says_which_it_is(tiny_models: dict[str, Path], asked: str, kind: str) -> None:
    config = EngineConfig(device="cpu", decoder=asked, kv_cache_memory=1 << 20, measure_limits="never")
    assert load_engine(tiny_models["llama"], config, lambda phase: None).decoder == kind
