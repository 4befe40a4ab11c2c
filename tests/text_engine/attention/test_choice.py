"""Which backend attends, what is said about those that cannot, and what is refused."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

from tests.text_engine.attention.fake_flash import FakeFlash, FakeFlash3, FakeVarlen
from tests.text_engine.attention.test_flash import faked
from tests.text_engine.engine_driver import EngineDriver
from tests.text_engine.llama_family import make, mistral
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.attention import choice, varlen
from vfastml.text_engine.attention.choice import choose_attention
from vfastml.text_engine.attention.flash import flash_attention
from vfastml.text_engine.attention.kind import SDPA, AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.attention.probe import probe
from vfastml.text_engine.attention.varlen import varlen_attention
from vfastml.text_engine.decoders import choice as decoder_choice
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.decoders.hf_decoder import HFDecoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.kv_cache import KVShape
from vfastml.text_engine.load_options import LoadOptions

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
BF16, F32 = torch.bfloat16, torch.float32
SHAPE = KVShape(2, 16, 16)
FIVE = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)


def needs(device: torch.device = CPU, dtype: torch.dtype = BF16, **fields: Any) -> AttentionNeeds:
    return AttentionNeeds(**{"device": device, "dtype": dtype, "num_heads": 6, "shapes": (SHAPE,), **fields})


def kind(name: str) -> AttentionKind:
    return AttentionKind(name, 16, SDPA.on)


def lacking(reason: str) -> Callable[[AttentionNeeds], AttentionKind]:
    def refuse(needs: AttentionNeeds) -> AttentionKind:
        raise NoAttention(reason)

    return refuse


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, choice.__name__)
    return caplog


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU to try a backend on."""
    monkeypatch.setattr(choice, "probe", lambda kind, needs: None)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_a_cpu_gets_sdpa_and_nothing_else_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choice, "_KINDS", {})
    assert choose_attention("auto", needs()) is SDPA
    assert choose_attention("sdpa", needs(GPU)) is SDPA
    assert log.records == []


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize("first", range(4))
def test_the_first_that_can_be_had_and_one_line_says_what_lacks(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, first: int
) -> None:
    names = list(choice._KINDS)
    assert names == ["triton", "flash", "varlen"]
    for place, name in enumerate(names):
        chosen = kind(name)
        found = lacking(f"reason {place}") if place < first else lambda needs, chosen=chosen: chosen
        monkeypatch.setitem(choice._KINDS, name, found)
    assert choose_attention("auto", needs(GPU)).name == [*names, "sdpa"][first]
    [record] = log.records
    assert record.levelname == ("INFO" if first < 3 else "WARNING")
    for place, name in enumerate(names):
        assert (f"no {name}: reason {place}" in record.message) == (place < first)


def test_one_that_fails_when_it_is_tried_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def refuse(kind: AttentionKind, needs: AttentionNeeds) -> None:
        if kind.name == "triton":
            raise NoAttention("it fails here")

    monkeypatch.setattr(choice, "is_interpreted", lambda: False)
    monkeypatch.setattr(choice, "probe", refuse)
    for name in choice._KINDS:
        chosen = kind(name)
        monkeypatch.setitem(choice._KINDS, name, lambda needs, chosen=chosen: chosen)
    assert choose_attention("auto", needs(GPU)).name == "flash"
    assert "flash; no triton: it fails here" in log.text


def test_one_that_is_asked_for_is_refused_by_name_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choice._KINDS, "varlen", lacking("the moon is full"))
    with pytest.raises(
        UnsupportedError, match=r"--attention-backend varlen cannot be had: the moon is full. .* take .* sdpa"
    ):
        choose_attention("varlen", needs(GPU))
    with pytest.raises(InvalidRequestError, match="'vllm' is not known: use auto, triton, flash, varlen, sdpa"):
        choose_attention("vllm", needs())


def test_triton_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "missing", lambda device: "the package triton is not installed")
    with pytest.raises(UnsupportedError, match="triton cannot be had: the package triton is not installed"):
        choose_attention("triton", needs(GPU))


@pytest.mark.parametrize("is_interpreted", [False, True])
def test_triton_is_imported_when_it_is_chosen_and_tried_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, is_interpreted: bool
) -> None:
    tried = []
    monkeypatch.setattr(choice, "missing", lambda device: None)
    monkeypatch.setattr(choice, "is_interpreted", lambda: is_interpreted)
    monkeypatch.setattr(choice, "probe", lambda kind, needs: tried.append(kind))
    monkeypatch.setitem(sys.modules, choice._TRITON, SimpleNamespace(TritonAttention=SDPA.on))
    chosen = choose_attention("triton", needs())
    assert (chosen.name, chosen.block_size, chosen.on) == ("triton", 16, SDPA.on)
    assert tried == ([] if is_interpreted else [chosen])


def test_what_a_model_asks_for_is_seen_in_its_layers() -> None:
    asked: list[AttentionNeeds] = []

    def choose(needs: AttentionNeeds) -> AttentionKind:
        asked.append(needs)
        return SDPA

    HFDecoder(make(hf.Gemma2ForCausalLM, hf.Gemma2Config, head_dim=8, sliding_window=8), choose)
    HFDecoder(make(hf.LlamaForCausalLM, hf.LlamaConfig), choose)
    gemma, llama = asked
    assert (gemma.has_windows, gemma.softcaps) == (True, True)
    assert (llama.has_windows, llama.softcaps) == (False, False)
    assert (llama.device, llama.dtype, llama.num_heads) == (CPU, F32, 6)
    assert llama.shapes == (KVShape(2, 8, 8, CPU),) * 3


@pytest.mark.parametrize("name", ["flash 2", "flash 3", "varlen"])
def test_a_sound_backend_passes_the_probe(name: str) -> None:
    sound, calls = faked(name)
    shapes = (SHAPE, KVShape(1, 8, 8), KVShape(4, 8, 8), SHAPE)
    probe(sound, needs(shapes=shapes))
    assert len(calls) == 3 * 2
    assert {call["window_size"][0] for call in calls} == {-1}
    probe(sound, needs(has_windows=True))
    assert calls[-1]["window_size"] == (3, 0)
    if name != "varlen":
        probe(sound, needs(softcaps=True))


def test_what_a_call_raises_is_the_reason() -> None:
    sound, _ = faked("flash 2")
    with pytest.raises(NoAttention, match=r"it fails here \(AssertionError: page size must be divisible by 256\)"):
        probe(AttentionKind("flash", 16, sound.on), needs())
    with pytest.raises(NoAttention, match="only fp16 and bf16"):
        probe(sound, needs(dtype=F32))


def test_another_output_than_that_of_sdpa_is_noticed() -> None:
    class Wrong(FakeFlash):
        def flash_attn_with_kvcache(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            left, right = kwargs["window_size"]
            window = (left + 1 if left >= 0 else left, right)
            return super().flash_attn_with_kvcache(*args, **{**kwargs, "window_size": window})

    wrong = Wrong()
    sound, _ = faked("flash 2")
    on = type(sound.on(None))  # type: ignore[arg-type]
    functions = wrong.flash_attn_varlen_func, wrong.flash_attn_with_kvcache
    with pytest.raises(NoAttention, match=r"computes something else than sdpa here \(error \d"):
        probe(AttentionKind("flash", 256, lambda cache: on(cache, *functions)), needs(has_windows=True))


@pytest.mark.usefixtures("hopper")
def test_flash_3_before_flash_2_on_a_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", FakeFlash())
    assert flash_attention(needs(GPU)).block_size == 256
    monkeypatch.setitem(sys.modules, "flash_attn_interface", FakeFlash3())
    assert flash_attention(needs(GPU)).block_size == 16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert flash_attention(needs(GPU)).block_size == 256


@pytest.mark.usefixtures("hopper")
def test_flash_says_what_the_installed_package_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flash_attn", "flash_attn_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NoAttention, match="flash_attn is not installed, and the package flash_attn_interface is not"):
        flash_attention(needs(GPU))
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(cute=None))  # FlashAttention-4 alone
    with pytest.raises(NoAttention, match="flash_attn has no flash_attn_varlen_func"):
        flash_attention(needs(GPU))
    old = SimpleNamespace(flash_attn_varlen_func=lambda q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal: q)
    monkeypatch.setitem(sys.modules, "flash_attn", old)
    with pytest.raises(NoAttention, match="of this version of flash_attn has no block_table, softcap, window_size"):
        flash_attention(needs(GPU))


@pytest.mark.usefixtures("hopper")
def test_a_package_that_does_not_load_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    (tmp_path / "flash_attn_interface.py").write_text("import einops_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("flash_attn", "flash_attn_interface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(NoAttention, match=r"does not load \(undefined symbol.*flash_attn_interface needs einops_that"):
        flash_attention(needs(GPU))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (needs(CPU), "does not run on cpu"),
        (needs(GPU, F32), "does not compute in float32"),
        (needs(GPU, shapes=(SHAPE, KVShape(2, 24, 16))), "no heads of 24 numbers in keys and 16 in values"),
        (needs(GPU, shapes=(KVShape(2, 12, 12),)), "no heads of 12"),
        (needs(GPU, shapes=(KVShape(2, 512, 512),)), "no heads of 512"),
        (needs(GPU, shapes=(SHAPE, KVShape(2, 16, 16, torch.device("cuda:1")))), "spread over several devices"),
    ],
)
@pytest.mark.parametrize("choose", [flash_attention, varlen_attention])
def test_what_no_flash_kernel_takes(
    choose: Callable[[AttentionNeeds], AttentionKind], asked: AttentionNeeds, reason: str
) -> None:
    with pytest.raises(NoAttention, match=reason):
        choose(asked)


def test_old_gpus_have_no_flash_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(NoAttention, match="older than Ampere"):
        flash_attention(needs(GPU))


@pytest.mark.usefixtures("hopper")
def test_varlen_is_known_by_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in torch 2.11 (no block tables), 2.13, and a torch that has no such module."""
    first = SimpleNamespace(
        varlen_attn=lambda query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size: query
    )
    monkeypatch.setitem(sys.modules, varlen._MODULE, first)
    with pytest.raises(NoAttention, match="of torch has no block_table, enable_gqa, num_splits, seqused_k"):
        varlen_attention(needs(GPU))
    monkeypatch.setitem(sys.modules, varlen._MODULE, FakeVarlen())
    assert varlen_attention(needs(GPU)).block_size == 256
    with pytest.raises(NoAttention, match="does not cap scores"):
        varlen_attention(needs(GPU, softcaps=True))
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", lambda: "FA3", raising=False)
    with pytest.raises(NoAttention, match="replaced by FA3"):
        varlen_attention(needs(GPU))
    monkeypatch.setitem(sys.modules, varlen._MODULE, None)
    with pytest.raises(NoAttention, match="has no varlen_attn"):
        varlen_attention(needs(GPU))


def load(folder: Path, **config: Any) -> Any:
    return load_decoder(folder, EngineConfig(**config), LoadOptions(), name="tiny", device=CPU, dtype=F32)


def test_the_cpu_kernels_give_way_to_a_backend_that_is_asked_for(
    tiny_models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, decoder_choice.__name__)
    for decoder in ("auto", "fused", "fused-torch"):
        caplog.clear()
        loaded = load(tiny_models["llama"], decoder=decoder, attention_backend="sdpa")
        assert (loaded.kind, loaded.attention, loaded.block_size) == ("fused-torch", "sdpa", 16)
        assert ("does without the CPU kernels" in caplog.text) == (decoder != "fused-torch")
    with pytest.raises(UnsupportedError, match="attention of their own: leave out --attention-backend, or the quant"):
        load(tiny_models["llama"], attention_backend="sdpa", quantization="int8")


@pytest.mark.parametrize("decoder", ["auto", "hf", "fused-torch"])
def test_each_decoder_refuses_a_backend_that_is_for_gpus(tiny_models: dict[str, Path], decoder: str) -> None:
    for name in ("flash", "varlen"):
        with pytest.raises(UnsupportedError, match=f"--attention-backend {name} cannot be had: it does not run on cpu"):
            load(tiny_models["llama"], decoder=decoder, attention_backend=name)
    with pytest.raises(InvalidRequestError, match="--attention-backend 'nope' is not known"):
        load(tiny_models["llama"], decoder=decoder, attention_backend="nope")


@pytest.mark.parametrize(("window", "has_windows"), [(None, False), (8, True)])
def test_windows_of_the_family_are_told_to_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None, has_windows: bool
) -> None:
    mistral(sliding_window=window).save_pretrained(tmp_path)
    asked: list[AttentionNeeds] = []
    monkeypatch.setattr(decoder_choice, "choose_attention", lambda name, needs: asked.append(needs) or SDPA)
    load(tmp_path, decoder="fused-torch")
    [needs] = asked
    assert needs.has_windows == has_windows


@pytest.mark.parametrize("decoder", ["hf", "fused-torch"])
def test_an_engine_over_blocks_of_256_says_the_same(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    """The backend is told to the decoder, checked with it, and sets the size of the engine's blocks."""
    prompts = [[5, 6, 7], [place * 7 % 251 for place in range(300)]]

    def texts() -> tuple[EngineDriver, list[list[int]]]:
        driver = EngineDriver.load(
            tiny_models["llama"], dtype="float16", decoder=decoder, max_model_len=600, max_num_batched_tokens=200
        )
        ids = [driver.add(prompt, FIVE) for prompt in prompts]
        driver.run()
        return driver, [driver.tokens(request_id) for request_id in ids]

    plain, expected = texts()
    assert (plain.loaded.attention, plain.loaded.limits.block_size) == ("sdpa", 16)
    chosen, calls = faked("flash 2")
    asked: list[AttentionNeeds] = []
    monkeypatch.setattr(decoder_choice, "choose_attention", lambda name, needs: asked.append(needs) or chosen)
    driver, output = texts()
    assert (driver.loaded.attention, driver.loaded.limits.block_size) == ("flash", 256)
    assert (asked[0].num_heads, asked[0].shapes[0].num_heads) == (6, 2)
    assert (asked[0].has_windows, asked[0].softcaps) == (False, False)
    assert len(calls) > 0
    assert output == expected
