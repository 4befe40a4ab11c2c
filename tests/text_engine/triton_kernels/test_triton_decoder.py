"""The Llama family in few launches computes what transformers' own modules, and our decoder in torch, compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.oracle import forced_logits as true_logits
from tests.text_engine.forced_run import forced_logits
from tests.text_engine.llama_family import FAMILY, llama, qwen2, qwen3
from tests.tiny_models import save_model
from vfastml.text_engine.attention.kind import SDPA
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.decoders.fused_decoder import FusedDecoder
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.kv_cache import KVShape

TEXTS = [([17, 4, 250, 3, 91, 8, 33, 120, 5, 77, 201, 66, 9], [1, 2, 3]), ([5], [88, 9, 7]), ([4, 5, 6], [30])]
"""The first is longer than any window; few tokens, because each takes the interpreter long."""
BUDGET = 9


def opened(folder: Path, dtype: torch.dtype, device: torch.device) -> TritonDecoder:
    return TritonDecoder(LlamaWeights.open(folder, dtype), device, SDPA)


def relative_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    found_all, expected_all = torch.cat(found).cpu(), torch.cat(expected).cpu()
    return float((found_all - expected_all).norm() / expected_all.norm())


@pytest.mark.parametrize("maker", FAMILY.values(), ids=FAMILY.keys())
def test_float32_logits_are_those_of_transformers_and_of_torch(
    tmp_path: Path, device: torch.device, maker: Callable[[], PreTrainedModel]
) -> None:
    model = maker()
    folder = save_model(model, tmp_path)
    found = forced_logits(opened(folder, torch.float32, device), TEXTS, budget=BUDGET)
    in_torch = FusedDecoder(LlamaWeights.open(folder, torch.float32), device)
    expected = forced_logits(in_torch, TEXTS, budget=BUDGET)
    for (prompt, output), logits, torch_logits in zip(TEXTS, found, expected, strict=True):
        torch.testing.assert_close(logits, torch_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits.cpu(), true_logits(model, prompt, output), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("maker", [llama, qwen2, qwen3])
def test_half_precision_is_no_further_from_the_truth_than_torch_is(
    tmp_path: Path, device: torch.device, maker: Callable[[], PreTrainedModel], dtype: torch.dtype
) -> None:
    folder = save_model(maker(), tmp_path)
    truth = maker().to(dtype).float()  # the same weights, computed with exactly
    expected = [true_logits(truth, prompt, output) for prompt, output in TEXTS]
    in_torch = forced_logits(FusedDecoder(LlamaWeights.open(folder, dtype), device), TEXTS, budget=BUDGET)
    found = forced_logits(opened(folder, dtype, device), TEXTS, budget=BUDGET)
    assert relative_error(found, expected) < 1.25 * relative_error(in_torch, expected)


def test_large_residuals_do_not_leave_the_range_of_float16(tmp_path: Path, device: torch.device) -> None:
    model = llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(30000)  # alone within the range, but not once a matrix has summed it up
    folder = save_model(model, tmp_path)
    weights = LlamaWeights.open(folder, torch.float16)
    embedding, qkv = weights.embedding().to(torch.float32), weights.layer(0).qkv.to(torch.float32)
    assert embedding.abs().max() < 65504 < (embedding @ qkv.t()).abs().max()
    found = forced_logits(opened(folder, torch.float16, device), TEXTS, budget=BUDGET)
    expected = [true_logits(model, prompt, output) for prompt, output in TEXTS]
    assert relative_error(found, expected) < 0.02


def test_what_the_engine_asks_of_a_decoder(tmp_path: Path, device: torch.device) -> None:
    decoder = opened(save_model(llama(), tmp_path), torch.bfloat16, device)
    assert (decoder.name, decoder.kind, decoder.is_quantized) == ("LlamaForCausalLM", "fused-triton", False)
    assert (decoder.attention, decoder.block_size) == ("sdpa", 16)
    assert (decoder.device, decoder.dtype, decoder.vocab_size) == (device, torch.bfloat16, 259)
    assert decoder.kv_shapes == [KVShape(2, 8, 8, device)] * 3
    assert decoder.end_token_ids == [257]
    assert decoder.config.max_position_embeddings == 4096


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_passes_the_check_of_each_start(tmp_path: Path, device: torch.device, dtype: torch.dtype) -> None:
    check_decoder(opened(save_model(llama(), tmp_path), dtype, device))
