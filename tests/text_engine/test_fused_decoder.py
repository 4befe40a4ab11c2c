"""The Llama family in one flat forward pass computes what transformers' own modules compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.oracle import forced_logits as true_logits
from tests.text_engine.forced_run import forced_logits, mixed_texts
from tests.text_engine.llama_family import FAMILY, llama
from tests.tiny_models import save_model
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.decoders.fused_decoder import FusedDecoder
from vfastml.text_engine.decoders.hf_decoder import HFDecoder
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.kv_cache import KVShape

CPU = torch.device("cpu")
TEXTS = mixed_texts()


def fused(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> FusedDecoder:
    return FusedDecoder(LlamaWeights.open(save_model(model, folder), dtype), CPU)


def relative_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    found_all, expected_all = torch.cat(found), torch.cat(expected)
    return float((found_all - expected_all).norm() / expected_all.norm())


@pytest.mark.parametrize("budget", [5, 64])
@pytest.mark.parametrize("maker", FAMILY.values(), ids=FAMILY.keys())
def test_float32_logits_are_those_of_transformers(
    tmp_path: Path, maker: Callable[[], PreTrainedModel], budget: int
) -> None:
    model = maker()
    decoder = fused(model, tmp_path, torch.float32)
    found = forced_logits(decoder, TEXTS, budget=budget, max_num_seqs=3)
    for (prompt, output), logits in zip(TEXTS, found, strict=True):
        torch.testing.assert_close(logits, true_logits(model, prompt, output), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("maker", FAMILY.values(), ids=FAMILY.keys())
def test_bfloat16_is_no_further_from_the_truth_than_transformers_is(
    tmp_path: Path, maker: Callable[[], PreTrainedModel]
) -> None:
    decoder = fused(maker(), tmp_path, torch.bfloat16)
    truth = maker().to(torch.bfloat16).float()  # the same weights, computed with exactly
    expected = [true_logits(truth, prompt, output) for prompt, output in TEXTS]
    theirs = forced_logits(HFDecoder(maker().to(torch.bfloat16)), TEXTS, budget=16)
    error = relative_error(forced_logits(decoder, TEXTS, budget=16), expected)
    assert error < 1.25 * relative_error(theirs, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_do_not_depend_on_neighbours(tmp_path: Path, dtype: torch.dtype) -> None:
    decoder = fused(llama(intermediate_size=2048), tmp_path, dtype)
    prompts = [([number, 5], [1, 2, 3]) for number in range(6)]
    together = forced_logits(decoder, prompts, budget=64)
    for text, logits in zip(prompts, together, strict=True):
        assert torch.equal(forced_logits(decoder, [text], budget=64)[0], logits)


def test_what_the_engine_asks_of_a_decoder(tmp_path: Path) -> None:
    model = llama()
    decoder = fused(model, tmp_path, torch.bfloat16)
    assert (decoder.name, decoder.kind, decoder.is_quantized) == ("LlamaForCausalLM", "fused-torch", False)
    assert (decoder.device, decoder.dtype, decoder.vocab_size) == (CPU, torch.bfloat16, 259)
    assert decoder.kv_shapes == [KVShape(2, 8, 8, CPU)] * 3
    assert decoder.end_token_ids == HFDecoder(model).end_token_ids == [257]
    assert decoder.config.max_position_embeddings == 4096


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_passes_the_check_of_each_start(tmp_path: Path, dtype: torch.dtype) -> None:
    check_decoder(fused(llama(), tmp_path, dtype))
