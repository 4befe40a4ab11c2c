"""The engine on the Triton kernels says what transformers' `generate` says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.oracle import assert_same_tokens, generate, load_oracle
from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams

PROMPTS = [[9, 8, 7, 6, 5, 4, 3], [1], [9, 8, 7, 6]]
NUM_TOKENS = 4


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_packed_and_chunked_equals_alone(tiny_models: dict[str, Path], device: torch.device, name: str) -> None:
    driver = EngineDriver.load(
        tiny_models[name],
        device=str(device),
        dtype="float32",
        decoder="fused-triton",
        attention_backend="sdpa",
        max_num_batched_tokens=6,
        max_num_seqs=3,
        kv_cache_memory=1 << 18,
    )
    assert driver.loaded.decoder == "fused-triton"
    oracle = load_oracle(tiny_models[name])
    sampling = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    ids = [driver.add(prompt, sampling) for prompt in PROMPTS]
    driver.run()
    for request_id, prompt in zip(ids, PROMPTS, strict=True):
        expected = generate(oracle, prompt, NUM_TOKENS, ignore_eos=True)
        assert_same_tokens(oracle, prompt, driver.tokens(request_id), expected)
