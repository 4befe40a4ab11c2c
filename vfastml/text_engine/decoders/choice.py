"""Which decoder runs a model: our own for the Llama family, transformers' modules for all others."""

from __future__ import annotations

import logging
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.attention.choice import check_attention_name, choose_attention
from vfastml.text_engine.attention.kind import AttentionKind, AttentionNeeds
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.decoders.fused_decoder import FusedDecoder
from vfastml.text_engine.decoders.hf_decoder import HFDecoder, load_hf_model
from vfastml.text_engine.decoders.llama_weights import LlamaWeights, NotFusable
from vfastml.text_engine.decoders.native_decoder import NATIVE_DTYPES, NativeDecoder
from vfastml.text_engine.decoders.random_model import random_hf_model
from vfastml.text_engine.engine_config import DECODERS, LOAD_FORMATS, QUANTIZATIONS, EngineConfig
from vfastml.text_engine.kv_cache import KVShape
from vfastml.text_engine.load_options import LoadOptions
from vfastml.text_engine.model_kind import stored_quantization
from vfastml.text_engine.triton_kernels.availability import missing, missing_for_fp8

logger = logging.getLogger(__name__)

_TRITON = "vfastml.text_engine.decoders.triton_decoder"
_FP8 = "vfastml.text_engine.decoders.fp8_projection"
"""Not to be imported without the package triton."""


def load_decoder(
    folder: Path, config: EngineConfig, options: LoadOptions, *, name: str, device: torch.device, dtype: torch.dtype
) -> Decoder:
    """Loads the model in `folder` into the decoder that is asked for, or else the fastest that can run it; `name` is
    what errors call the model.

    Raises UnsupportedError if the decoder, the attention or the quantization that is asked for cannot be had, and as
    `load_hf_model` does; InvalidRequestError for unknown names and for settings that contradict each other.
    """
    _check_names(config)
    _check_quantization(config, options, device, dtype)
    if config.load_format == "dummy":
        _check_dummy(folder, options)
        logger.warning("%s has RANDOM weights (--load-format dummy): what it says means nothing", name)
    try:
        weights = _llama_weights(folder, config, options, dtype, device)
    except NotFusable as reason:
        _check_transformers_may(config, name, reason)
        logger.info("%s runs on transformers' own modules: %s", name, reason)
        if config.load_format == "dummy":
            model = random_hf_model(folder, device=device, dtype=dtype)
        else:
            model = load_hf_model(folder, name=name, device=device, dtype=dtype, options=options)
        return HFDecoder(model, partial(choose_attention, config.attention_backend))
    return _fused(weights, config, device, name)


def _fused(weights: LlamaWeights, config: EngineConfig, device: torch.device, name: str) -> Decoder:
    """Our own decoder, as it is asked for or else the fastest of this device."""
    if config.decoder == "fused-triton" or (device.type == "cuda" and config.decoder != "fused-torch"):
        return _in_triton(weights, config, device, name)
    if device.type == "cpu" and config.decoder != "fused-torch" and config.attention_backend == "auto":
        return _on_cpu(weights, config.quantization, name)
    if device.type == "cpu" and config.decoder != "fused-torch":
        logger.info("%s does without the CPU kernels: --attention-backend is not for their own attention", name)
    logger.info("%s runs on the fused decoder in torch", name)
    return _in_torch(weights, device, config.attention_backend)


def _in_torch(weights: LlamaWeights, device: torch.device, attention_backend: str) -> FusedDecoder:
    return FusedDecoder(weights, device, _attention(weights, device, attention_backend))


def _in_triton(weights: LlamaWeights, config: EngineConfig, device: torch.device, name: str) -> Decoder:
    lacking = missing(device)
    if lacking is not None and config.decoder == "fused-triton":
        raise UnsupportedError(f"--decoder fused-triton cannot be had: {lacking}. Leave it out.")
    if lacking is not None:
        logger.warning("%s runs on the fused decoder in torch, without the faster Triton kernels: %s", name, lacking)
        return _in_torch(weights, device, config.attention_backend)
    make_decoder = import_module(_TRITON).TritonDecoder
    if config.quantization == "fp8":
        fp8 = import_module(_FP8)
        fp8.check_fp8(weights.shape, device)
        make_decoder = partial(make_decoder, projection=fp8.Fp8Projection)
    decoder: Decoder = make_decoder(weights, device, _attention(weights, device, config.attention_backend))
    logger.info("%s runs on the Triton kernels%s", name, ", in fp8" if config.quantization else "")
    return decoder


def _attention(weights: LlamaWeights, device: torch.device, asked: str) -> AttentionKind:
    shape = weights.shape
    stored = KVShape(shape.num_kv_heads, shape.head_dim, shape.head_dim, device)
    has_windows = any(window is not None for window in shape.windows)
    return choose_attention(asked, AttentionNeeds(device, weights.dtype, shape.num_heads, (stored,), has_windows))


def _llama_weights(
    folder: Path, config: EngineConfig, options: LoadOptions, dtype: torch.dtype, device: torch.device
) -> LlamaWeights:
    if config.decoder == "hf":
        raise NotFusable("they were asked for")
    if options.device_map is not None:
        raise NotFusable("a device_map spreads it over devices")
    if options.quantization is not None:
        raise NotFusable("they are to quantize it")
    if config.load_format == "dummy":
        return LlamaWeights.random(folder, dtype, device)
    return LlamaWeights.open(folder, dtype)


def _on_cpu(weights: LlamaWeights, quantization: str | None, name: str) -> Decoder:
    try:
        if weights.dtype not in NATIVE_DTYPES:
            raise NoKernels(f"there are none for {str(weights.dtype).removeprefix('torch.')}")
        kernels = cpu_kernels.load()
        decoder = NativeDecoder(weights, kernels, quantization)
    except NoKernels as reason:
        if quantization is not None:
            raise UnsupportedError(f"--quantization {quantization} needs the CPU kernels: {reason}.") from reason
        logger.warning("%s runs on the fused decoder in torch, without the faster CPU kernels: %s", name, reason)
        return _in_torch(weights, torch.device("cpu"), "auto")
    logger.info("%s runs on the CPU kernels for %s%s", name, kernels.level, ", in int8" if quantization else "")
    return decoder


def _check_names(config: EngineConfig) -> None:
    if config.decoder not in DECODERS:
        raise InvalidRequestError(f"--decoder {config.decoder!r} is not known: use {', '.join(DECODERS)}.")
    if config.quantization is not None and config.quantization not in QUANTIZATIONS:
        known = ", ".join(QUANTIZATIONS)
        raise InvalidRequestError(f"--quantization {config.quantization!r} is not known: use {known}, or none.")
    check_attention_name(config.attention_backend)
    if config.load_format not in LOAD_FORMATS:
        raise InvalidRequestError(f"--load-format {config.load_format!r} is not known: use {', '.join(LOAD_FORMATS)}.")


def _check_quantization(config: EngineConfig, options: LoadOptions, device: torch.device, dtype: torch.dtype) -> None:
    if config.quantization is None:
        return
    if options.quantization is not None:
        raise InvalidRequestError("--quantization and model_load_kwargs both quantize: give one.")
    if config.quantization == "fp8":
        _check_fp8(config, device, dtype)
    else:
        _check_int8(config, device)


def _check_int8(config: EngineConfig, device: torch.device) -> None:
    """It is computed by the CPU kernels, and by nothing else."""
    needs = f"--quantization {config.quantization} needs the CPU kernels"
    if config.decoder in ("hf", "fused-torch", "fused-triton"):
        raise UnsupportedError(f"{needs}: leave out --decoder {config.decoder}, or the quantization.")
    if config.attention_backend != "auto":
        raise UnsupportedError(
            f"{needs}, which have an attention of their own: leave out --attention-backend, or the quantization."
        )
    if device.type != "cpu":
        raise UnsupportedError(f"{needs}: give --device cpu, or leave the quantization out.")


def _check_fp8(config: EngineConfig, device: torch.device, dtype: torch.dtype) -> None:
    """It is computed between the Triton kernels, and by nothing else."""
    lacking = missing_for_fp8(device)
    if lacking is not None:
        raise UnsupportedError(f"--quantization fp8 cannot be had: {lacking}. Leave it out.")
    if config.decoder in ("hf", "fused-torch"):
        raise UnsupportedError(
            f"--quantization fp8 needs the Triton kernels: leave out --decoder {config.decoder}, or the quantization."
        )
    if dtype != torch.bfloat16:
        raise UnsupportedError("--quantization fp8 goes with bfloat16 alone: give --dtype bfloat16.")


def _check_dummy(folder: Path, options: LoadOptions) -> None:
    """Random weights are plain numbers on one device."""
    if options.device_map is not None or options.quantization is not None:
        raise InvalidRequestError(
            "--load-format dummy goes with no device_map and no quantization of model_load_kwargs."
        )
    if stored_quantization(folder) is not None:
        raise UnsupportedError(
            "--load-format dummy makes no quantized weights: take quantization_config out of a copy of config.json."
        )


def _check_transformers_may(config: EngineConfig, name: str, reason: NotFusable) -> None:
    """Nothing that is asked for is given up silently."""
    asked = [f"--decoder {config.decoder}"] * config.decoder.startswith("fused")
    asked += [f"--quantization {config.quantization}"] * (config.quantization is not None)
    if asked:
        raise UnsupportedError(
            f"{name} does not run on the fused decoder: {reason}. Leave out {' and '.join(asked)}."
        ) from reason
