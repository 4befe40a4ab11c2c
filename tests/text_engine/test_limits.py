"""What is settled from the model, the memory and what was asked for; settings that cannot work are refused by flag."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Phi3Config

from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError
from vfastml.text_engine import kv_budget
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.gpu_memory import CONTEXT_BYTES, CardMemory, StepMemory
from vfastml.text_engine.kv_cache import KVShape
from vfastml.text_engine.limits import settle_limits

BLOCK_BYTES = 2 * 2 * 16 * 16 * 4
"""Two layers, two KV heads, 8 + 8 numbers for each of 16 tokens, float32."""
LLAMA = LlamaConfig(max_position_embeddings=1000)
TOTAL, WEIGHTS, STEP, GRAPHS = 8 << 30, 1 << 30, 300 << 10, 100 << 10
"""Of a GPU, in bytes."""


def settle(
    model: Any = LLAMA,
    *,
    free: int = 1 << 40,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    block_size: int = 16,
    **asked: Any,
) -> Limits:
    decoder = SimpleNamespace(
        device=torch.device(device),
        dtype=dtype,
        config=model,
        kv_shapes=[KVShape(2, 8, 8), KVShape(2, 8, 8)],
        block_size=block_size,
        attention="sdpa",
        vocab_size=32000,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_budget, "free_memory", lambda: free)
        patch.setattr(kv_budget, "card_memory", lambda device: CardMemory(TOTAL, free, WEIGHTS))
        patch.setattr(kv_budget, "_step_memory", lambda *args: StepMemory(STEP, GRAPHS))
        return settle_limits(EngineConfig(**asked), decoder)  # type: ignore[arg-type]


def test_defaults_of_a_cpu() -> None:
    settled = settle()
    assert (settled.max_model_len, settled.max_num_seqs, settled.max_num_batched_tokens) == (1000, 64, 64)
    assert settled.num_blocks == 64 * 63  # 64 whole texts: more could never be in use
    assert settled.kv_cache_bytes == settled.num_blocks * BLOCK_BYTES
    assert settle(dtype=torch.bfloat16).max_num_batched_tokens == 128


def test_defaults_of_a_gpu() -> None:
    settled = settle(device="cuda:0", free=1 << 20)
    assert (settled.max_num_seqs, settled.max_num_batched_tokens) == (256, 8192)
    assert settled.num_blocks == (int((1 << 20) * 0.85) - STEP - GRAPHS) // BLOCK_BYTES


def test_a_gpus_cache_is_what_its_limit_leaves_or_what_is_asked_for() -> None:
    whole = settle(device="cuda:0", free=7 << 30, gpu_memory=0.5)
    assert whole.kv_cache_bytes == 256 * 63 * BLOCK_BYTES  # as many as could be in use
    long = LlamaConfig(max_position_embeddings=1 << 17)
    half = settle(long, device="cuda:0", free=7 << 30, gpu_memory=0.5)
    assert half.num_blocks == ((4 << 30) - WEIGHTS - CONTEXT_BYTES - STEP - GRAPHS) // BLOCK_BYTES
    assert settle(long, device="cuda:0", free=7 << 30, gpu_memory=float(4 << 30)) == half
    assert settle(device="cuda:0", free=7 << 30, gpu_memory=0.5, kv_cache_memory=9 * BLOCK_BYTES).num_blocks == 9
    # More than fits, of which no more is ever needed than does fit
    assert settle(device="cuda:0", free=7 << 30, kv_cache_memory=99 << 30, max_num_seqs=1).num_blocks == 63


def test_limit_of_a_gpu_that_leaves_no_two_blocks() -> None:
    limit = WEIGHTS + CONTEXT_BYTES + STEP + GRAPHS + BLOCK_BYTES
    with pytest.raises(InvalidRequestError, match=r"--gpu-memory is too small: .* hold two blocks of 16 tokens"):
        settle(device="cuda:0", free=7 << 30, gpu_memory=float(limit))


def test_blocks_are_those_that_the_attention_reads() -> None:
    settled = settle(block_size=256, kv_cache_memory=3 * 16 * BLOCK_BYTES)
    assert (settled.block_size, settled.num_blocks, settled.kv_cache_bytes) == (256, 3, 3 * 16 * BLOCK_BYTES)


@pytest.mark.parametrize(
    ("layers_on_first", "free", "expected"),
    [(1, (100, 100), 56), (1, (20, 100), 34), (3, (90, 100), 51), (4, (80, 0), 34)],
)
def test_device_with_the_least_room_for_its_layers_decides(
    layers_on_first: int, free: tuple[int, int], expected: int
) -> None:
    """Four layers on two GPUs; what is free is in blocks of two layers, of which 85 % are for the cache and steps."""
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    shapes = [KVShape(2, 8, 8, first)] * layers_on_first + [KVShape(2, 8, 8, second)] * (4 - layers_on_first)
    decoder = SimpleNamespace(device=first, dtype=torch.float32, config=LLAMA, kv_shapes=shapes, block_size=16)
    room = {device: blocks * BLOCK_BYTES for device, blocks in zip((first, second), free, strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_budget, "card_memory", lambda device: CardMemory(TOTAL, room[device], 0))
        patch.setattr(kv_budget, "_step_memory", lambda *args: StepMemory(0, 0))
        assert settle_limits(EngineConfig(), decoder).num_blocks == expected  # type: ignore[arg-type]


def test_layers_that_compute_on_the_cpu_have_their_cache_there() -> None:
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    decoder = SimpleNamespace(
        device=gpu,
        dtype=torch.float32,
        config=LLAMA,
        kv_shapes=[KVShape(2, 8, 8, gpu), KVShape(2, 8, 8, cpu)],
        block_size=16,
        attention="sdpa",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_budget, "free_memory", lambda: 4 * 10 * BLOCK_BYTES // 2)
        patch.setattr(kv_budget, "card_memory", lambda device: CardMemory(TOTAL, 1 << 30, 0))
        patch.setattr(kv_budget, "_step_memory", lambda *args: StepMemory(0, 0))
        assert settle_limits(EngineConfig(), decoder).num_blocks == 10  # type: ignore[arg-type]


def test_kv_cache_is_a_share_of_the_free_memory_and_bounds_the_length() -> None:
    settled = settle(free=BLOCK_BYTES * 4 * 10)
    assert settled.num_blocks == 10
    assert settled.max_model_len == 160
    model = LlamaConfig(max_position_embeddings=1 << 20)
    assert settle(model, free=1 << 40).kv_cache_bytes <= 2 << 30


def test_asked_values_are_taken() -> None:
    settled = settle(max_model_len=100, max_num_seqs=3, max_num_batched_tokens=7, kv_cache_memory=BLOCK_BYTES * 9 + 1)
    assert settled == Limits(100, 3, 7, num_blocks=9, block_size=16, kv_cache_bytes=9 * BLOCK_BYTES)


def test_no_more_sequences_than_a_step_has_tokens() -> None:
    assert settle(max_num_seqs=100, max_num_batched_tokens=10).max_num_seqs == 10
    assert settle(max_num_seqs=100, measure_limits="never").max_num_seqs == 64


def test_default_budget_cuts_off_no_sequences_that_are_to_be_measured() -> None:
    settled = settle(max_num_seqs=100)
    assert (settled.max_num_seqs, settled.max_num_batched_tokens) == (100, 100)
    assert settled.num_blocks == 100 * 63


def test_one_short_text_at_a_time_is_a_setting_like_any_other() -> None:
    assert settle(max_model_len=2, max_num_seqs=1).num_blocks == 1


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"max_model_len": 1001}, "--max-model-len is 1001, but the model was made for 1000"),
        ({"max_model_len": 33, "kv_cache_memory": 2 * BLOCK_BYTES}, "--kv-cache-memory"),
        ({"kv_cache_memory": 2 * BLOCK_BYTES - 1}, "--kv-cache-memory is too small"),
        ({"free": 100}, "--kv-cache-memory is too small"),
        ({"max_model_len": 1}, "--max-model-len must be at least 2"),
        ({"max_model_len": 0}, "--max-model-len must be at least 2"),
        ({"max_num_seqs": 0}, "--max-num-seqs must be at least 1"),
        ({"max_num_batched_tokens": -5}, "--max-num-batched-tokens must be at least 1"),
        ({"kv_cache_memory": 0}, "--kv-cache-memory must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_by_flag(asked: dict[str, Any], flag: str) -> None:
    with pytest.raises(InvalidRequestError, match=flag):
        settle(**asked)


def test_model_that_does_not_say_its_length() -> None:
    assert settle(SimpleNamespace()).max_model_len == 2048


def test_longrope_is_served_up_to_its_original_length() -> None:
    factors = [1.0] * 4
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": factors}
    phi = Phi3Config(
        hidden_size=48,
        num_attention_heads=6,
        max_position_embeddings=4096,
        original_max_position_embeddings=256,
        rope_parameters=rope,
    )
    assert settle(phi).max_model_len == 256
    by_layer_type = {
        "full_attention": {**rope, "original_max_position_embeddings": 128},
        "other": {"rope_type": "default"},
    }
    assert settle(SimpleNamespace(max_position_embeddings=900, rope_parameters=by_layer_type)).max_model_len == 128


@pytest.mark.parametrize(("max_model_len", "max_num_seqs"), [(2, 1), (3, 1), (16, 1), (17, 2), (33, 1)])
def test_text_of_the_greatest_length_fits_for_every_sequence(
    tiny_models: dict[str, Path], max_model_len: int, max_num_seqs: int
) -> None:
    driver = EngineDriver.load(
        tiny_models["llama"], dtype="float32", max_model_len=max_model_len, max_num_seqs=max_num_seqs
    )
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)
    longest = driver.add([5] * (max_model_len - 1), sampling)
    shortest = driver.add([5], sampling)
    driver.run()
    assert len(driver.tokens(longest)) == 1
    assert len(driver.tokens(shortest)) == max_model_len - 1
    assert driver.engine.load().preemptions == 0


def test_cache_that_holds_one_text_serves_many_choices_of_it(tiny_models: dict[str, Path]) -> None:
    driver = EngineDriver.load(
        tiny_models["llama"], dtype="float32", max_model_len=32, max_num_seqs=4, kv_cache_memory=2 * 16 * 3 * 2 * 16 * 4
    )
    assert driver.loaded.limits.num_blocks == 2
    request = driver.add([5, 6, 7], SamplingParams(temperature=0.0, ignore_eos=True), n=4)
    driver.run()
    assert [len(driver.tokens(request, index)) for index in range(4)] == [29] * 4
    assert len({tuple(driver.tokens(request, index)) for index in range(4)}) == 1
    assert driver.engine.load().preemptions > 0
