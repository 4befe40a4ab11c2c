"""What runs a decoder's steps: one that waits for each, or one that leaves them to a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.launched_step import Launch
from vfastml.text_engine.model_runner import ModelRunner
from vfastml.text_engine.text_engine import Runner
from vfastml.text_engine.triton_kernels.availability import missing

logger = logging.getLogger(__name__)


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
    return _on_a_device(decoder, limits, end_token_ids, config, report)


def _tune(decoder: Decoder, report: Callable[[str], None]) -> None:
    from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
    from vfastml.text_engine.gpu.device_time import DeviceTime
    from vfastml.text_engine.gpu.product_tuning import products_of, tune

    assert isinstance(decoder, TritonDecoder)
    report("timing products of a few rows")
    like = torch.empty(0, dtype=decoder.dtype, device=decoder.device)
    tune(products_of(decoder), like, DeviceTime(decoder.device))


def _on_a_device(
    decoder: Decoder,
    limits: Limits,
    end_token_ids: tuple[int, ...],
    config: EngineConfig,
    report: Callable[[str], None],
) -> tuple[Runner, Launch | None]:
    from vfastml.text_engine.gpu.decode_graphs import DecodeGraphs, is_capturable
    from vfastml.text_engine.gpu.device_runner import DeviceRunner

    if decoder.device.type == "cuda" and decoder.kind == "fused-triton":
        _tune(decoder, report)
    runner = DeviceRunner(decoder, limits, end_token_ids)
    if config.cuda_graphs and decoder.device.type == "cuda" and is_capturable(runner.forward):
        from vfastml.text_engine.gpu.cuda_capture import CudaCapture

        report("recording CUDA graphs")
        max_blocks = limits.max_num_seqs * -(-limits.max_model_len // limits.block_size)
        graphs = DecodeGraphs(runner.forward, runner.sampler, runner.tokens, max_blocks, CudaCapture(decoder.device))
        graphs.capture()
        runner.use(graphs)
    overlap = "each step is made ready while the one before it runs" if config.overlap else "each step is waited for"
    logger.info("%s; %s", "decode steps are CUDA graphs" if runner.has_graphs else "no CUDA graphs", overlap)
    return runner, runner.launch if config.overlap else None
