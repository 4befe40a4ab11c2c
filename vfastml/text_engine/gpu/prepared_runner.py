"""A device's runner, made ready to serve: products chosen, graphs recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.gpu.cuda_capture import CudaCapture
from vfastml.text_engine.gpu.decode_graphs import DecodeGraphs, is_capturable
from vfastml.text_engine.gpu.device_runner import DeviceRunner
from vfastml.text_engine.gpu.device_time import DeviceTime
from vfastml.text_engine.gpu.product_tuning import products_of, tune
from vfastml.text_engine.launched_step import Launch

logger = logging.getLogger(__name__)


def prepared_runner(
    decoder: Decoder,
    limits: Limits,
    end_token_ids: tuple[int, ...],
    config: EngineConfig,
    report: Callable[[str], None],
) -> tuple[DeviceRunner, Launch | None]:
    """The runner, and what launches its steps ahead: None without overlap. Off a GPU, where Triton's interpreter
    computes, nothing is timed and nothing recorded."""
    on_gpu = decoder.device.type == "cuda"
    # In float32 our products do without matrix units, and gain nothing; compiling them takes most of a minute.
    if on_gpu and isinstance(decoder, TritonDecoder) and decoder.dtype.itemsize == 2:
        report("timing products of a few rows")
        like = torch.empty(0, dtype=decoder.dtype, device=decoder.device)
        tune(products_of(decoder), like, DeviceTime(decoder.device))
    runner = DeviceRunner(decoder, limits, end_token_ids)
    if on_gpu and config.cuda_graphs:
        _record(runner, decoder, limits, report)
    overlap = "each step is made ready while the one before it runs" if config.overlap else "each step is waited for"
    logger.info("%s; %s", "decode steps are CUDA graphs" if runner.has_graphs else "no CUDA graphs", overlap)
    return runner, runner.launch if config.overlap else None


def _record(runner: DeviceRunner, decoder: Decoder, limits: Limits, report: Callable[[str], None]) -> None:
    """Without graphs the runner launches each kernel: slower, and right."""
    if not is_capturable(runner.forward):
        logger.info("no CUDA graphs: they take the fused decoder with the attention backend triton")
        return
    report("recording CUDA graphs")
    max_blocks = limits.max_num_seqs * -(-limits.max_model_len // limits.block_size)
    # products of float16 come out in float32 (PlainProjection)
    dtype = torch.float32 if decoder.dtype == torch.float16 else decoder.dtype
    logits = torch.empty(limits.max_num_seqs, decoder.vocab_size, dtype=dtype, device=decoder.device)
    capture = CudaCapture(decoder.device)
    try:
        graphs = DecodeGraphs(runner.forward, runner.sampler, runner.tokens, logits, max_blocks, capture)
        graphs.capture()
    except RuntimeError as error:  # out of memory, or a launch that this torch does not record
        why = str(error).splitlines()[0]
        logger.warning("no CUDA graphs, and so slower decode steps: %s (--no-cuda-graphs does not try)", why)
        return
    runner.use(graphs)
