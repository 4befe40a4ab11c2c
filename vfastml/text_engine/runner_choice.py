"""What runs a decoder's steps: one that waits for each, or one that leaves them to a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.launched_step import Launch
from vfastml.text_engine.model_runner import ModelRunner
from vfastml.text_engine.text_engine import Runner
from vfastml.text_engine.triton_kernels.availability import missing

logger = logging.getLogger(__name__)

_DEVICE = "vfastml.text_engine.gpu.prepared_runner"
"""Not to be imported without the package triton."""


def make_runner(
    decoder: Decoder,
    limits: Limits,
    end_token_ids: tuple[int, ...],
    config: EngineConfig,
    report: Callable[[str], None],
) -> tuple[Runner, Launch | None]:
    """The runner with the KV cache that `limits` say, and what launches its steps ahead; None where each is waited
    for. On a GPU it has recorded its CUDA graphs."""
    computes_by_itself = decoder.device.type == "cuda" or decoder.kind == "fused-triton"
    if not computes_by_itself:
        return ModelRunner(decoder, limits, end_token_ids), None
    reason = missing(decoder.device)
    if reason is not None:
        logger.warning("tokens are sampled on the host, and no step overlaps with the next: %s", reason)
        return ModelRunner(decoder, limits, end_token_ids), None
    prepared: tuple[Runner, Launch | None] = import_module(_DEVICE).prepared_runner(
        decoder, limits, end_token_ids, config, report
    )
    return prepared
