"""The whole way of a GPU, from requests to texts: our decoder, our attention, sampling on the device, and steps that
are made ready while others run. Without a card it is Triton's interpreter that computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.oracle import assert_same_tokens, generate, load_oracle
from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_replies import Finished
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams

pytestmark = pytest.mark.slow

GREEDY = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
SHARED = list(range(40, 58))
PROMPTS = [[9, 8, 7, 6, 5, 4, 3], [1], [*SHARED, 1], [*SHARED, 2, 3], [6] * 23]
SAMPLED = [
    SamplingParams(temperature=0.8, seed=1, max_tokens=9, ignore_eos=True),
    SamplingParams(temperature=1.1, seed=2, top_p=0.9, max_tokens=9, ignore_eos=True),
    SamplingParams(temperature=0.9, seed=3, top_k=20, min_p=0.02, max_tokens=9, ignore_eos=True),
]


def engine(folder: Path, device: torch.device, **config: object) -> EngineDriver:
    settings = {"max_num_batched_tokens": 16, "max_num_seqs": 6, "kv_cache_memory": 1 << 18} | config
    return EngineDriver.load(
        folder, device=str(device), dtype="float32", decoder="fused-triton", attention_backend="triton", **settings
    )


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_greedy_texts_equal_generate(
    tiny_models: dict[str, Path], device: torch.device, name: str, overlap: bool
) -> None:
    """In chunks, beside each other, over shared prefixes, and with so few blocks that some begin anew."""
    if name not in tiny_models:
        pytest.skip("there is no such tiny model")
    driver = engine(tiny_models[name], device, overlap=overlap, kv_cache_memory=1 << 16)
    oracle = load_oracle(tiny_models[name])
    ids = []
    for prompt in PROMPTS:
        ids.append(driver.add(prompt, GREEDY))
        driver.step()
    driver.run()
    for request_id, prompt in zip(ids, PROMPTS, strict=True):
        assert_same_tokens(oracle, prompt, driver.tokens(request_id), generate(oracle, prompt, 9, ignore_eos=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes a second GPU")
def test_a_gpu_that_is_not_the_current_one(tiny_models: dict[str, Path]) -> None:
    driver = engine(tiny_models["llama"], torch.device("cuda:1"))
    ids = [driver.add(prompt, GREEDY) for prompt in PROMPTS]
    driver.run()
    oracle = load_oracle(tiny_models["llama"])
    for request_id, prompt in zip(ids, PROMPTS, strict=True):
        assert_same_tokens(oracle, prompt, driver.tokens(request_id), generate(oracle, prompt, 9, ignore_eos=True))


def test_all_kinds_of_requests_share_steps(tiny_models: dict[str, Path], device: torch.device) -> None:
    """Rows that are sampled on the device beside others that are not: each gets what it gets alone."""
    kinds: list[tuple[SamplingParams, dict[str, object]]] = [
        (GREEDY, {}),
        *((sampling, {}) for sampling in SAMPLED),
        (SamplingParams(temperature=0.0, max_tokens=7, repetition_penalty=1.3, ignore_eos=True), {}),
        (SamplingParams(temperature=0.9, seed=4, max_tokens=5, ignore_eos=True), {"n": 2}),
        (SamplingParams(temperature=0.0, max_tokens=5, logprobs=2, ignore_eos=True), {}),
        (SamplingParams(max_tokens=5), {"beams": BeamSearch(width=2)}),
    ]
    together = engine(tiny_models["llama"], device)
    ids = [together.add([5 + place, 6, 7], sampling, **fields) for place, (sampling, fields) in enumerate(kinds)]
    together.run()
    alone = engine(tiny_models["llama"], device, overlap=False)
    for place, ((sampling, fields), request_id) in enumerate(zip(kinds, ids, strict=True)):
        own = alone.add([5 + place, 6, 7], sampling, **fields)
        alone.run()
        assert isinstance(together.answers[request_id].end, Finished)
        assert together.answers[request_id].tokens == alone.answers[own].tokens
