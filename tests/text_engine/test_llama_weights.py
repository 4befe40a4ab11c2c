"""Which folders are known to be of the Llama family, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tests.text_engine.llama_family import FAMILY, LINEAR, WINDOWS, llama, make, mistral, qwen2, qwen3
from tests.tiny_models import SHAPE
from vfastml.text_engine.decoders.llama_weights import LlamaWeights, NotFusable

F32 = torch.float32
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def with_tensors(folder: Path, **changes: torch.Tensor | None) -> Path:
    """Tensors added, replaced, or (None) taken away."""
    path = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in {**load_file(path), **changes}.items() if tensor is not None}
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def assert_equal_layer(weights: LlamaWeights, model: PreTrainedModel, number: int) -> None:
    module, layer = model.model.layers[number], weights.layer(number)
    attention, mlp = module.self_attn, module.mlp
    assert torch.equal(layer.input_norm, module.input_layernorm.weight)
    assert torch.equal(layer.post_norm, module.post_attention_layernorm.weight)
    for merged, bias, parts in (
        (layer.qkv, layer.qkv_bias, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (layer.o, layer.o_bias, (attention.o_proj,)),
        (layer.gate_up, layer.gate_up_bias, (mlp.gate_proj, mlp.up_proj)),
        (layer.down, layer.down_bias, (mlp.down_proj,)),
    ):
        assert torch.equal(merged, torch.cat([part.weight for part in parts]))
        assert (bias is None) == (parts[0].bias is None)
        assert bias is None or torch.equal(bias, torch.cat([part.bias for part in parts]))
    for norm, own in ((layer.q_norm, "q_norm"), (layer.k_norm, "k_norm")):
        assert (norm is None) == (not hasattr(attention, own))
        assert norm is None or torch.equal(norm, getattr(attention, own).weight)


@pytest.mark.parametrize("shard", ["1GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("maker", FAMILY.values(), ids=FAMILY.keys())
def test_each_member_is_read(tmp_path: Path, maker: Callable[[], PreTrainedModel], shard: str) -> None:
    model = maker()
    weights = LlamaWeights.open(saved(model, tmp_path, max_shard_size=shard), F32)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 or shard == "20KB"
    for number in range(SHAPE["num_hidden_layers"]):
        assert_equal_layer(weights, model, number)
    assert torch.equal(weights.embedding(), model.model.embed_tokens.weight)
    assert torch.equal(weights.final_norm(), model.model.norm.weight)
    head = weights.lm_head()
    assert (head is None) == bool(model.config.tie_word_embeddings)
    assert head is None or torch.equal(head, model.lm_head.weight)
    assert torch.equal(weights.inv_freq, model.model.rotary_emb.inv_freq)
    assert weights.rope_scaling == model.model.rotary_emb.attention_scaling


def test_numbers_of_the_shape(tmp_path: Path) -> None:
    shape = LlamaWeights.open(saved(qwen3(**WINDOWS), tmp_path), F32).shape
    assert (shape.num_layers, shape.hidden_size, shape.intermediate_size, shape.vocab_size) == (3, 48, 96, 259)
    assert (shape.num_heads, shape.num_kv_heads, shape.head_dim) == (6, 2, 16)
    assert (shape.rms_norm_eps, shape.windows) == (1e-6, (None, 10, 10))


def test_weights_are_converted_and_keep_nothing_of_the_file(tmp_path: Path) -> None:
    for stored, asked in ((torch.float16, torch.bfloat16), (F32, F32)):
        weights = LlamaWeights.open(saved(llama(attention_bias=True).to(stored), tmp_path / str(stored)), asked)
        layer = weights.layer(0)
        for tensor in (layer.qkv, layer.qkv_bias, layer.o, layer.down, layer.input_norm, weights.final_norm()):
            assert tensor is not None
            assert tensor.dtype == asked
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert weights.embedding().dtype == asked
        assert weights.embedding_table().dtype == stored


def test_stored_output_embedding_of_a_tied_model(tmp_path: Path) -> None:
    folder = saved(llama(tie_word_embeddings=True), tmp_path)
    embedding = load_file(folder / "model.safetensors")[EMBEDDING]
    with_tensors(folder, **{LM_HEAD: embedding.clone()})
    assert LlamaWeights.open(folder, F32).lm_head() is None
    with_tensors(folder, **{LM_HEAD: embedding + 1})
    head = LlamaWeights.open(folder, F32).lm_head()
    theirs = hf.LlamaForCausalLM.from_pretrained(folder)
    assert head is not None
    assert torch.equal(head, theirs.lm_head.weight)
    assert torch.equal(LlamaWeights.open(folder, F32).embedding(), theirs.model.embed_tokens.weight)


def test_angles_that_an_old_checkpoint_stored_are_ignored(tmp_path: Path) -> None:
    old = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(3)}
    weights = LlamaWeights.open(with_tensors(saved(llama(), tmp_path), **old), F32)
    assert not torch.equal(weights.inv_freq, torch.ones(4))


@pytest.mark.parametrize("ids", [7, [7, 9], None])
def test_end_tokens_are_those_of_a_transformers_model(tmp_path: Path, ids: int | list[int] | None) -> None:
    folder = saved(llama(), tmp_path)
    generation = folder / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": ids}))
    assert LlamaWeights.open(folder, F32).end_token_ids == ([7] if ids == 7 else ids or [])
    generation.unlink()
    assert LlamaWeights.open(folder, F32).end_token_ids == [257]


OTHERS: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "gemma2": (lambda: make(hf.Gemma2ForCausalLM, hf.Gemma2Config, head_dim=8), "type, gemma2, is another"),
    "phi3": (lambda: make(hf.Phi3ForCausalLM, hf.Phi3Config), "type, phi3, is another"),
    "gpt2": (lambda: make(hf.GPT2LMHeadModel, hf.GPT2Config, n_head=6, n_embd=48, n_layer=3), "type, gpt2"),
    "no decoder": (lambda: make(hf.LlamaForTokenClassification, hf.LlamaConfig), "not a LlamaForCausalLM"),
    "activation": (lambda: llama(hidden_act="gelu"), "activation, gelu"),
    "RoPE that grows": (lambda: llama(rope_parameters={**LINEAR, "rope_type": "dynamic"}), "RoPE, of type dynamic"),
    "RoPE of a part": (lambda: qwen2(rope_parameters={**LINEAR, "partial_rotary_factor": 0.5}), "RoPE does not fit"),
    "chunks": (lambda: qwen2(layer_types=["chunked_attention"] * 3), "layers of an unknown type"),
    "windows without a size": (lambda: qwen2(layer_types=["sliding_attention"] * 3), "layers of an unknown type"),
    "window in a Llama": (lambda: llama(sliding_window=16), "it has a window"),
    "two kinds of layers in a Mistral": (
        lambda: mistral(layer_types=["full_attention", "sliding_attention", "full_attention"]),
        "type, ministral",
    ),
}


@pytest.mark.parametrize(("maker", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_others_are_left_alone(tmp_path: Path, maker: Callable[[], PreTrainedModel], reason: str) -> None:
    with pytest.raises(NotFusable, match=reason):
        LlamaWeights.open(saved(maker(), tmp_path), F32)


Q = "model.layers.1.self_attn.q_proj.weight"
TENSORS: list[tuple[dict[str, torch.Tensor | None], str]] = [
    ({Q: None}, f"lacks 1 tensors, {Q} among"),
    ({LM_HEAD: None}, "lacks 1 tensors, lm_head.weight among"),
    ({"model.layers.3.mlp.up_proj.weight": torch.ones(96, 48)}, "1 tensors too many, model.layers.3"),
    ({"model.layers.1.self_attn.q_proj.bias": torch.ones(48)}, "1 tensors too many"),
    ({Q: torch.ones(47, 48)}, "q_proj.weight has another shape"),
    ({Q: torch.ones(48, 48, dtype=torch.int8)}, "q_proj.weight is stored as I8"),
    ({Q: torch.ones(48, 48).to(torch.float8_e4m3fn)}, "q_proj.weight is stored as F8"),
]


@pytest.mark.parametrize(("changes", "reason"), TENSORS)
def test_files_hold_exactly_what_the_config_says(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], reason: str
) -> None:
    with pytest.raises(NotFusable, match=reason):
        LlamaWeights.open(with_tensors(saved(llama(), tmp_path), **changes), F32)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"quantization_config": {"quant_method": "fp8"}}, "stored quantized"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "not a LlamaForCausalLM"),
    ({"architectures": None}, "not a LlamaForCausalLM"),
    ({"num_key_value_heads": 4}, "share KV heads unevenly"),
    ({"attention_bias": True}, "lacks 12 tensors"),
]


@pytest.mark.parametrize(("changes", "reason"), CONFIGS)
def test_config_that_says_otherwise(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotFusable, match=reason):
        LlamaWeights.open(with_config(saved(llama(), tmp_path), **changes), F32)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    folder = saved(llama(), tmp_path)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors, path, metadata={"format": "mlx"})
    with pytest.raises(NotFusable, match="not saved by torch"):
        LlamaWeights.open(folder, F32)
    path.rename(tmp_path.parent / "elsewhere.safetensors")
    with pytest.raises(NotFusable, match=r"no model\.safetensors"):
        LlamaWeights.open(folder, F32)
    index = folder / "model.safetensors.index.json"
    for name in ("../elsewhere.safetensors", "missing.safetensors"):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))
        with pytest.raises(NotFusable, match="not beside it"):
            LlamaWeights.open(folder, F32)
