"""The arithmetic of a GPU's memory, on cards that are only numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig, Qwen3MoeConfig

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.gpu_memory import (
    CONTEXT_BYTES,
    CardMemory,
    MemoryPlan,
    StepMemory,
    check_gpu_memory,
    limit_bytes,
    plan_memory,
)
from vfastml.text_engine.kv_cache import KVShape
from vfastml.text_engine.step_memory import ModelWidths

GIB = 1 << 30
STEPS = StepMemory(step=2 * GIB, graphs=1 * GIB)
PLENTY = 1 << 50
LLAMA_8B = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8)


def card(free: float, reserved: float = 16, total: float = 80) -> CardMemory:
    return CardMemory(int(total * GIB), int(free * GIB), int(reserved * GIB))


def plan(
    memory: CardMemory,
    asked: float | None = None,
    wanted: float | None = None,
    most: int = PLENTY,
    steps: StepMemory = STEPS,
) -> MemoryPlan:
    return plan_memory(memory, steps, asked, None if wanted is None else int(wanted * GIB), most)


def refusal(*args: float | CardMemory | None, **kwargs: float) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        plan(*args, **kwargs)  # type: ignore[arg-type]
    return str(refused.value)


@pytest.mark.parametrize(("asked", "expected"), [(0.5, 40 * GIB), (1, 80 * GIB), (1.0, 80 * GIB), (10e9, 10**10)])
def test_a_share_or_bytes(asked: float, expected: int) -> None:
    assert limit_bytes(asked, 80 * GIB) == expected


@pytest.mark.parametrize("asked", [0.5, 40.0 * GIB])
def test_the_cache_gets_what_is_left_of_the_limit(asked: float) -> None:
    planned = plan(card(free=62), asked)
    assert planned.kv_cache == 40 * GIB - 16 * GIB - 3 * GIB - CONTEXT_BYTES
    for part in (
        "--gpu-memory of 40.00 GiB: weights 16.00",
        "CUDA 0.59",
        "a step 2.00",
        "recorded steps 1.00",
        "20.41",
    ):
        assert part in planned.explanation


def test_what_the_process_takes_adds_up_to_the_limit() -> None:
    for asked in (0.3, 0.5, 0.93):
        planned = plan(card(free=70), asked)
        taken = planned.kv_cache + 16 * GIB + STEPS.step + STEPS.graphs + CONTEXT_BYTES
        assert abs(taken - asked * 80 * GIB) < 2


def test_what_attention_copies_comes_out_of_the_cache() -> None:
    copying = StepMemory(STEPS.step, STEPS.graphs, scratch=0.1)
    without, cache = plan(card(62), 0.5).kv_cache, plan(card(62), 0.5, steps=copying).kv_cache
    assert abs(cache * 1.1 - without) < 2


def test_two_servers_share_one_card() -> None:
    """Each is told 0.4 of it. Whichever is second finds what the first has left; both get the same."""
    total, weights = 80, 16
    first = plan(card(free=total - weights - 0.6), 0.4)
    taken = 0.4 * total
    second = plan(card(free=total - taken - weights - 0.6), 0.4)
    assert first.kv_cache == second.kv_cache > 0
    both_loaded = plan(card(free=total - 2 * (weights + 0.6)), 0.4)  # started in the same moment
    assert both_loaded.kv_cache == first.kv_cache


def test_without_a_limit_it_is_a_share_of_what_is_free_less_a_step() -> None:
    planned = plan(card(free=60))
    assert planned.kv_cache == int(60 * GIB * 0.85) - 3 * GIB
    assert "of 80.00 GiB there are 60.00 GiB free: a step 2.00 GiB" in planned.explanation


def test_no_more_than_can_be_filled() -> None:
    assert plan(card(60), most=GIB).kv_cache == GIB
    assert plan(card(60), 0.5, most=GIB).kv_cache == GIB
    assert plan(card(60), 0.5, 3, most=GIB).kv_cache == GIB


def test_what_is_asked_for_is_taken_where_it_fits() -> None:
    assert plan(card(60), None, 7).kv_cache == 7 * GIB
    assert plan(card(60), 0.5, 7).kv_cache == 7 * GIB
    assert plan(card(60), None, 59).kv_cache == 59 * GIB  # at the operator's own risk, as ever


def test_each_refusal_has_the_numbers_and_what_to_do() -> None:
    said = refusal(card(60), 0.2)
    assert (
        "--gpu-memory of 16.00 GiB leaves nothing for the KV cache (weights 16.00 GiB, CUDA 0.59 GiB, a step 2" in said
    )
    assert "give more, or make steps smaller with --max-num-batched-tokens and --max-num-seqs" in said
    assert "--gpu-memory of 90.00 GiB is more than the GPU has, 80.00 GiB" in refusal(card(60), 90.0 * GIB)
    assert "leaves 20.41 GiB for the KV cache" in refusal(card(60), 0.5, 21)
    assert "less than --kv-cache-memory: 21.00 GiB" in refusal(card(60), 0.5, 21)
    said = refusal(card(free=10), 0.5)
    assert "has 20.41 GiB for the KV cache" in said
    assert "of the GPU's 80.00 GiB only 10.00 GiB are free: others use it" in said
    assert "--kv-cache-memory is 61.00 GiB, but of 80.00 GiB there are 60.00 GiB free" in refusal(card(60), None, 61)
    said = refusal(card(free=3))
    assert (
        "no room for a KV cache: of 80.00 GiB there are 3.00 GiB free, and a step needs memory too (a step 2.00" in said
    )


@pytest.mark.parametrize("asked", [0.0, -0.1, -5.0, float("inf"), float("nan")])
def test_no_amount_of_memory(asked: float) -> None:
    with pytest.raises(InvalidRequestError, match="--gpu-memory must be more than zero"):
        check_gpu_memory(asked, torch.device("cuda:0"))


def test_a_cpu_has_no_such_memory() -> None:
    check_gpu_memory(None, torch.device("cpu"))
    check_gpu_memory(0.5, torch.device("cuda:0"))
    with pytest.raises(
        InvalidRequestError, match=r"--gpu-memory is for a GPU, .* on cpu: leave it out; --kv-cache-memory"
    ):
        check_gpu_memory(0.5, torch.device("cpu"))


def widths(config: object, heads: int = 8, dim: int = 128) -> ModelWidths:
    return ModelWidths.of(config, [KVShape(heads, dim, dim)] * 2, vocab_size=128256, itemsize=2)


def test_widths_of_a_model() -> None:
    assert widths(LLAMA_8B) == ModelWidths(hidden=4096, inner=14336, heads=6144, vocab=128256, itemsize=2)
    mixtral = MixtralConfig(hidden_size=4096, intermediate_size=14336, num_experts_per_tok=2)
    assert widths(mixtral).inner == 14336
    moe = Qwen3MoeConfig(hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_experts_per_tok=10)
    assert widths(moe).inner == 7680


def test_a_config_that_names_no_widths_gets_a_guess() -> None:
    class Bare:
        intermediate_size = (10, 30, 20)

    assert widths(Bare()).inner == 30
    assert widths(object()).hidden > 0
    assert widths(object()).inner == 4 * widths(object()).hidden


def test_a_step_of_an_8b_takes_a_few_gib_and_grows_with_its_size() -> None:
    model = widths(LLAMA_8B)
    assert GIB < model.step_bytes(8192, 256) < 6 * GIB
    more_tokens, more_rows = model.step_bytes(8193, 256), model.step_bytes(8192, 257)
    assert more_tokens - model.step_bytes(8192, 256) > 2 * 4 * 14336
    assert more_rows - model.step_bytes(8192, 256) > 4 * 128256
    assert 0 < model.graph_bytes(1) < model.graph_bytes(256) < model.step_bytes(8192, 256)
