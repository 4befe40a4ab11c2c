"""Which models are served: those whose attention goes through the hook and computes the same; the others are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import PreTrainedModel

from tests.oracle import assert_same_tokens, generate
from tests.text_engine.engine_driver import EngineDriver
from tests.tiny_models import SHAPE, save_model
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import UnsupportedError
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.decoders.hf_decoder import HFDecoder
from vfastml.text_engine.kv_cache import KVShape

CPU = torch.device("cpu")
UNTIED = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "tie_word_embeddings": False}
LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}


def make(model: type[PreTrainedModel], config: type[hf.PreTrainedConfig], **fields: Any) -> PreTrainedModel:
    torch.manual_seed(7)
    return model(config(**{**SHAPE, "max_position_embeddings": 512, **fields})).eval()


def tiny_llama() -> PreTrainedModel:
    return make(hf.LlamaForCausalLM, hf.LlamaConfig)


SERVED: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma2: softcap, every other layer with a window": lambda: make(
        hf.Gemma2ForCausalLM, hf.Gemma2Config, **UNTIED, attn_logit_softcapping=2.0
    ),
    "gemma3: two kinds of RoPE": lambda: make(
        hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, **UNTIED, layer_types=["sliding_attention"] * 2 + ["full_attention"]
    ),
    "qwen3: norms of queries and keys": lambda: make(hf.Qwen3ForCausalLM, hf.Qwen3Config, head_dim=8),
    "phi3: merged projections": lambda: make(hf.Phi3ForCausalLM, hf.Phi3Config),
    "gpt2: absolute positions": lambda: make(hf.GPT2LMHeadModel, hf.GPT2Config, n_head=6, n_embd=48, n_layer=3),
    "olmo2": lambda: make(hf.Olmo2ForCausalLM, hf.Olmo2Config),
    "granite: its own scaling": lambda: make(hf.GraniteForCausalLM, hf.GraniteConfig, attention_multiplier=0.9),
    "deepseek: values shorter than keys": lambda: make(hf.DeepseekV3ForCausalLM, hf.DeepseekV3Config, **LATENT),
}


@pytest.mark.parametrize("maker", SERVED.values(), ids=SERVED.keys())
def test_family_is_served_and_equals_generate(tmp_path: Path, maker: Callable[[], PreTrainedModel]) -> None:
    folder = save_model(maker(), tmp_path)
    driver = EngineDriver.load(folder, dtype="float32", max_num_batched_tokens=16, kv_cache_memory=4 << 20)
    oracle = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = [[5, 6, 7], [place * 7 % 251 for place in range(50)]]
    sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    ids = [driver.add(prompt, sampling) for prompt in prompts]
    driver.run()
    assert driver.engine.load().chunked_prefills > 0
    for request_id, prompt in zip(ids, prompts, strict=True):
        expected = generate(oracle, prompt, 12, ignore_eos=True)
        assert_same_tokens(oracle, prompt, driver.tokens(request_id), expected)


REFUSED: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "sinks": (
        lambda: make(hf.GptOssForCausalLM, hf.GptOssConfig, head_dim=8, num_local_experts=4),
        "GptOssForCausalLM .* attention sinks",
    ),
    "window that is only in the mask": (
        lambda: make(hf.PhimoeForCausalLM, hf.PhimoeConfig, sliding_window=64, num_local_experts=4),
        "PhimoeForCausalLM has sliding attention",
    ),
    "chunks": (
        lambda: make(
            hf.Llama4ForCausalLM, hf.Llama4TextConfig, head_dim=8, num_local_experts=2, intermediate_size_mlp=96
        ),
        "Llama4ForCausalLM has chunked attention",
    ),
    "layers of another kind": (
        lambda: make(hf.Lfm2ForCausalLM, hf.Lfm2Config, layer_types=["conv", "full_attention", "conv"]),
        "Lfm2ForCausalLM has layers without ordinary attention",
    ),
    "no attention at all": (
        lambda: make(hf.FalconMambaForCausalLM, hf.FalconMambaConfig, state_size=4),
        "FalconMambaForCausalLM does not let its attention be replaced",
    ),
    "ALiBi": (
        lambda: make(hf.BloomForCausalLM, hf.BloomConfig, n_head=6, n_layer=2),
        "BloomForCausalLM does not let its attention be replaced",
    ),
}


@pytest.mark.parametrize(("maker", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_family_is_refused_by_name(maker: Callable[[], PreTrainedModel], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        check_decoder(HFDecoder(maker()))


def test_shapes_are_those_of_the_layers() -> None:
    assert HFDecoder(tiny_llama()).kv_shapes == [KVShape(2, 8, 8, CPU)] * 3
    latent = make(hf.DeepseekV3ForCausalLM, hf.DeepseekV3Config, **LATENT)
    assert HFDecoder(latent).kv_shapes == [KVShape(6, 16, 12, CPU)] * 3


class _Rebuilt(torch.nn.Module):
    """Llama's attention layer with its forward replaced."""

    def __init__(self, layer: torch.nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = layer
        self._forward = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self.layer, *args, **kwargs)


def with_layer(forward: Callable[..., Any]) -> PreTrainedModel:
    model = tiny_llama()
    model.model.layers[1].self_attn = _Rebuilt(model.model.layers[1].self_attn, forward)
    return model


def skip(layer: torch.nn.Module, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return hidden_states, None


def twice(layer: torch.nn.Module, **kwargs: Any) -> Any:
    layer(**kwargs)
    return layer(**kwargs)


def keep_keywords(layer: torch.nn.Module, attention_step: object = None, **kwargs: Any) -> Any:
    return layer(**kwargs)


def look_back_one(layer: torch.nn.Module, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
    """Mixes neighbours before it attends, which a packed batch cannot know."""
    return layer(hidden_states + hidden_states.roll(1, dims=1), **kwargs)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (skip, "without ordinary attention"),
        (twice, "does not call each attention layer once"),
        (keep_keywords, "does not hand keywords on"),
        (look_back_one, "computes something else"),
    ],
)
def test_layer_that_does_something_of_its_own_is_noticed(forward: Callable[..., Any], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=f"LlamaForCausalLM.*{reason}"):
        check_decoder(HFDecoder(with_layer(forward)))


def test_model_that_raises_is_refused_with_its_reason() -> None:
    def broken(layer: torch.nn.Module, **kwargs: Any) -> Any:
        raise TypeError("an argument too many")

    with pytest.raises(UnsupportedError, match="LlamaForCausalLM cannot run on a paged cache: an argument too many"):
        HFDecoder(with_layer(broken))


def test_attention_that_cannot_be_replaced_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.LlamaForCausalLM, "_supports_attention_backend", False)
    with pytest.raises(UnsupportedError, match="LlamaForCausalLM does not let"):
        HFDecoder(tiny_llama())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sound_model_passes_in_each_dtype(dtype: torch.dtype) -> None:
    check_decoder(HFDecoder(tiny_llama().to(dtype)))


def test_check_leaves_the_hook_in_place() -> None:
    decoder = HFDecoder(tiny_llama())
    check_decoder(decoder)
    check_decoder(decoder)
    assert decoder.config._attn_implementation == "vfastml"
