"""Which decoder a model gets, what is said about it, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
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


def test_triton_kernels_are_used_where_they_are_asked_for(
    tiny_models: dict[str, Path], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(choice, "missing", lambda device: None)
    decoder = load(tiny_models["llama"], decoder="fused-triton", attention_backend="sdpa")
    assert (decoder.kind, decoder.attention) == ("fused-triton", "sdpa")
    assert [record.message for record in log.records] == ["tiny runs on the Triton kernels"]


def test_triton_kernels_that_cannot_be_had_are_refused_where_they_are_asked_for(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "missing", lambda device: "the package triton is not installed")
    with pytest.raises(UnsupportedError, match="fused-triton cannot be had: the package triton is not installed"):
        load(tiny_models["llama"], decoder="fused-triton")


class OnGPU:
    """In the place of a decoder, as the choice makes one for a GPU that this machine may lack."""

    def __init__(self, weights: object, device: torch.device, attention: object, projection: str = "exact") -> None:
        self.device = device
        self.projection = projection


def on_gpu() -> dict[str, type[OnGPU]]:
    return {kind: type(kind, (OnGPU,), {"kind": kind}) for kind in ("fused-torch", "fused-triton")}


@pytest.mark.parametrize(
    ("asked", "lacking", "chosen"),
    [
        ("auto", None, "fused-triton"),
        ("fused", None, "fused-triton"),
        ("fused-torch", None, "fused-torch"),
        ("auto", "the GPU is older than Ampere", "fused-torch"),
    ],
)
def test_choice_for_a_llama_on_a_gpu(
    tiny_models: dict[str, Path],
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    lacking: str | None,
    chosen: str,
) -> None:
    made = on_gpu()
    monkeypatch.setattr(choice, "missing", lambda device: lacking)
    monkeypatch.setattr(choice, "FusedDecoder", made["fused-torch"])
    monkeypatch.setattr(choice, "import_module", lambda name: SimpleNamespace(TritonDecoder=made["fused-triton"]))
    decoder = load(tiny_models["llama"], device=GPU, decoder=asked, attention_backend="sdpa")
    assert (decoder.kind, decoder.device) == (chosen, GPU)
    [record] = log.records
    assert record.levelname == ("INFO" if lacking is None else "WARNING")
    assert lacking is None or lacking in record.message


def test_fp8_where_it_can_be_had(
    tiny_models: dict[str, Path], log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    parts = {
        "triton_decoder": SimpleNamespace(TritonDecoder=on_gpu()["fused-triton"]),
        "fp8_projection": SimpleNamespace(check_fp8=lambda *of: tried.append(of), Fp8Projection="fp8"),
    }
    monkeypatch.setattr(choice, "missing", lambda device: None)
    monkeypatch.setattr(choice, "missing_for_fp8", lambda device: None)
    monkeypatch.setattr(choice, "import_module", lambda name: parts[name.rsplit(".", 1)[1]])
    settings: dict[str, Any] = {"device": GPU, "dtype": torch.bfloat16, "attention_backend": "sdpa"}
    decoder: Any = load(tiny_models["llama"], quantization="fp8", **settings)
    assert (decoder.kind, decoder.projection) == ("fused-triton", "fp8")
    assert [device for _, device in tried] == [GPU]
    assert log.messages == ["tiny runs on the Triton kernels, in fp8"]
    assert load(tiny_models["llama"], **settings).projection == "exact"  # type: ignore[attr-defined]
    for asked in ("hf", "fused-torch"):
        with pytest.raises(UnsupportedError, match=f"fp8 needs the Triton kernels: leave out --decoder {asked}"):
            load(tiny_models["llama"], quantization="fp8", decoder=asked, **settings)
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(UnsupportedError, match="give --dtype bfloat16"):
            load(tiny_models["llama"], quantization="fp8", **settings | {"dtype": dtype})


def test_fp8_is_refused_by_name_elsewhere(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"--quantization fp8 cannot be had: cpu is no GPU\. Leave it out"):
        load(tiny_models["llama"], quantization="fp8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(UnsupportedError, match="cannot be had: the GPU is older than Ada and Hopper"):
        load(tiny_models["llama"], quantization="fp8", device=GPU, dtype=torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.delattr(torch, "_scaled_mm")
    with pytest.raises(UnsupportedError, match="cannot be had: this torch has no _scaled_mm"):
        load(tiny_models["llama"], quantization="fp8", device=GPU, dtype=torch.bfloat16)


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
    with pytest.raises(
        InvalidRequestError, match=r"--decoder 'vllm' is not known: use auto, hf, fused, fused-torch, fused-triton"
    ):
        load(tiny_models["llama"], decoder="vllm")
    with pytest.raises(InvalidRequestError, match=r"--quantization 'int4' is not known: use int8, fp8"):
        load(tiny_models["llama"], quantization="int4")


@pytest.mark.parametrize(("asked", "kind"), [("hf", "hf"), ("fused-torch", "fused-torch")])
def test_loaded_engine_says_which_it_is(tiny_models: dict[str, Path], asked: str, kind: str) -> None:
    config = EngineConfig(device="cpu", decoder=asked, kv_cache_memory=1 << 20, measure_limits="never")
    assert load_engine(tiny_models["llama"], config, lambda phase: None).decoder == kind
