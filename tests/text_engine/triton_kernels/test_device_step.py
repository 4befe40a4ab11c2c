"""A step that the host knows nothing of: few launches, no waiting, and room that is not filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.text_engine.llama_family import llama, qwen2, qwen3
from tests.text_engine.triton_kernels.watched_run import watched
from tests.tiny_models import save_model
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.kind import SDPA, AttentionKind
from vfastml.text_engine.decoders.device_step import DeviceStep
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder, TritonForward
from vfastml.text_engine.kv_cache import KVCache

NUM_BLOCKS, BLOCK_SIZE = 6, 4
LARGEST, WITH_SPLIT_ATTENTION = 8, 2


@dataclass
class OwnValues:
    """In the place of attention: each token sees itself alone, which takes no launch."""

    cache: KVCache
    name: str = "own values"

    def prepare(self, inputs: Any) -> None:
        raise NotImplementedError

    def forward(self, *arguments: Any) -> torch.Tensor:
        raise NotImplementedError

    def attend(self, layer: int, query: torch.Tensor, meta: Any, options: AttentionOptions) -> torch.Tensor:
        return query


def forward_of(
    model: PreTrainedModel, folder: Path, device: torch.device, attention: AttentionKind
) -> tuple[TritonForward, KVCache]:
    decoder = TritonDecoder(LlamaWeights.open(save_model(model, folder), torch.float32), device, attention)
    cache = KVCache(decoder.kv_shapes, NUM_BLOCKS, BLOCK_SIZE, decoder.dtype, device)
    return decoder.on(cache), cache


def step_of(slots: list[int], device: torch.device, **fields: Any) -> DeviceStep:
    """Tokens at the beginnings of texts; those without a slot fill up."""
    places = torch.tensor(slots, device=device)
    ids = torch.where(places < 0, 0, places * 7 + 3)
    return DeviceStep(ids, torch.zeros_like(ids), places, **{"logits_index": None, "attention": None, **fields})


@pytest.mark.parametrize("maker", [llama, qwen2, qwen3])
def test_decode_takes_at_most_eight_launches_a_layer_and_waits_for_nothing(
    tmp_path: Path, device: torch.device, maker: Callable[..., PreTrainedModel]
) -> None:
    kind = AttentionKind("own values", BLOCK_SIZE, OwnValues)
    names = {}
    for num_layers in (1, 3):
        model = maker(num_hidden_layers=num_layers)
        forward, _ = forward_of(model, tmp_path / str(num_layers), device, kind)
        step = step_of([4, 9], device)
        with watched() as launches:
            forward.run(step)
        names[num_layers] = launches.names
    layer = ["aten::mm", "_rope_write_kernel", "aten::addmm_", "aten::mm", "_silu_mul_kernel", "aten::addmm_"]
    assert names[1] == ["aten::index_select", *layer, "_rms_norm_kernel", "aten::mm"]
    assert names[3] == [names[1][0], *layer * 3, *names[1][-2:]]
    assert len(layer) + WITH_SPLIT_ATTENTION <= LARGEST


@pytest.mark.parametrize("read", [torch.Tensor.item, torch.Tensor.tolist, bool, int, torch.Tensor.cpu])
def test_what_waits_would_be_noticed(read: Callable[[torch.Tensor], Any]) -> None:
    one = torch.ones(1)
    with pytest.raises(AssertionError, match="waits for the device"), watched():
        read(one)


def test_tokens_that_fill_up_change_nothing(tmp_path: Path, device: torch.device) -> None:
    forward, cache = forward_of(llama(), tmp_path, device, AttentionKind("own values", BLOCK_SIZE, OwnValues))
    alone = forward.run(step_of([4, 9], device))
    written = [keys.clone() for keys in (*cache.keys, *cache.values)]
    filled = forward.run(step_of([4, 9, -1, -1], device))
    torch.testing.assert_close(filled[:2], alone, rtol=1e-5, atol=1e-5)
    for before, after in zip(written, (*cache.keys, *cache.values), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        assert int(after.flatten(0, 1).flatten(1).any(1).sum()) == 2


def test_logits_of_the_tokens_that_are_named(tmp_path: Path, device: torch.device) -> None:
    forward, _ = forward_of(llama(), tmp_path, device, AttentionKind("own values", BLOCK_SIZE, OwnValues))
    everything = forward.run(step_of([4, 9, 2], device))
    chosen = forward.run(step_of([4, 9, 2], device, logits_index=torch.tensor([0, 2], device=device)))
    assert everything.dtype == torch.float32
    torch.testing.assert_close(chosen, everything[[0, 2]], rtol=1e-5, atol=1e-5)
    none = torch.empty(0, dtype=torch.int64, device=device)
    assert forward.run(step_of([4], device, logits_index=none)).shape == (0, 259)


def test_tensors_of_a_step_are_read_anew(tmp_path: Path, device: torch.device) -> None:
    """A graph's replay reads what lies there then: nothing of a step may be kept from an earlier one."""
    forward, _ = forward_of(llama(), tmp_path, device, AttentionKind("own values", BLOCK_SIZE, OwnValues))
    step = step_of([4], device)
    forward.run(step)
    step.input_ids.fill_(11)
    step.position_ids.fill_(5)
    step.slots.fill_(3)
    again = forward.run(step)
    fresh = DeviceStep(*(torch.tensor([number], device=device) for number in (11, 5, 3)), None, None)
    assert torch.equal(again, forward.run(fresh))


def test_backend_is_the_one_that_was_chosen(tmp_path: Path, device: torch.device) -> None:
    forward, _ = forward_of(llama(), tmp_path, device, SDPA)
    assert forward.backend.name == "sdpa"
