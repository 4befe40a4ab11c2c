"""How many bytes the KV cache gets: what was asked for, or what the device has left."""

from __future__ import annotations

import logging
from collections import defaultdict

import torch

from vfastml.text_engine.attention.kind import SDPA
from vfastml.text_engine.cuda_memory import card_memory
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.gpu_memory import GRAPHS_BYTES, StepMemory, plan_memory
from vfastml.text_engine.kv_cache import KVShape, bytes_per_block, free_memory
from vfastml.text_engine.step_memory import ModelWidths

logger = logging.getLogger(__name__)

CPU_SHARE, CPU_DEFAULT_MAX = 0.25, 2 << 30
"""Of the free memory, which is shared with everything else on the machine."""
_SDPA_COPIES = 3
"""Of the keys and values that a layer has in a step: gathered, padded to like lengths, and laid out by heads."""


def kv_cache_bytes(config: EngineConfig, decoder: Decoder, most: int, num_seqs: int, num_tokens: int) -> int:
    """At most `most`, which is what all sequences can fill; steps have up to `num_tokens` tokens, and `num_seqs` rows
    that sample. Raises InvalidRequestError, with the numbers, for what does not fit on a GPU."""
    asked = None if config.kv_cache_memory is None else min(config.kv_cache_memory, most)
    # Every block lies in all layers: the device that has the least room for its own layers decides.
    total = bytes_per_block(decoder.kv_shapes, decoder.block_size, decoder.dtype)
    budgets = []
    for device, shapes in _by_device(decoder).items():
        own = bytes_per_block(shapes, decoder.block_size, decoder.dtype)
        wanted = None if asked is None else _share(asked, own, total)
        if device.type == "cpu":
            here = wanted or min(int(free_memory() * CPU_SHARE), CPU_DEFAULT_MAX)
        else:
            steps = _step_memory(decoder, len(shapes), num_seqs, num_tokens)
            plan = plan_memory(card_memory(device), steps, config.gpu_memory, wanted, _share(most, own, total))
            logger.info("%s: %s", device, plan.explanation)
            here = plan.kv_cache
        budgets.append(here * total // own)
    return min(most, *budgets)


def _share(num_bytes: int, own: int, total: int) -> int:
    """Of one device, rounded up: of what is just enough no block is lost."""
    return -(-num_bytes * own // total)


def _by_device(decoder: Decoder) -> dict[torch.device, list[KVShape]]:
    by_device: dict[torch.device, list[KVShape]] = defaultdict(list)
    for shape in decoder.kv_shapes:
        by_device[shape.device or decoder.device].append(shape)
    return by_device


def _step_memory(decoder: Decoder, num_layers: int, num_seqs: int, num_tokens: int) -> StepMemory:
    widths = ModelWidths.of(decoder.config, decoder.kv_shapes, decoder.vocab_size, decoder.dtype.itemsize)
    return StepMemory(
        step=widths.step_bytes(num_tokens, num_seqs),
        graphs=GRAPHS_BYTES + widths.graph_bytes(num_seqs),
        scratch=_SDPA_COPIES / num_layers if decoder.attention == SDPA.name else 0.0,
    )
