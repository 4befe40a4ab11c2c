"""What the machine and the model allow: settled once, after the weights are loaded."""

from __future__ import annotations

import math

import msgspec
import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import MEASURING, EngineConfig
from vfastml.text_engine.gpu_memory import DEFAULT_SHARE
from vfastml.text_engine.kv_budget import CPU_DEFAULT_MAX, CPU_SHARE, kv_cache_bytes
from vfastml.text_engine.kv_cache import bytes_per_block
from vfastml.text_engine.step_profile import StepProfile
from vfastml.text_engine.step_sizes import StepSizes

_LEAST = {"max_model_len": 2, "max_num_seqs": 1, "max_num_batched_tokens": 1, "kv_cache_memory": 1}
_TARGETS = ("target_tpot_ms", "target_ttft_ms")
_DEFAULT_MODEL_LEN = 2048
"""For a model that does not say how long its texts may be."""


def settle_limits(config: EngineConfig, decoder: Decoder) -> Limits:
    """From the memory, the model and what was asked for; nothing is measured yet. Raises InvalidRequestError, which
    names the flag to change, for settings that cannot work together."""
    _require_positive(config)
    _require_measurable(config)
    on_cpu = decoder.device.type == "cpu"
    block_size = decoder.block_size
    block_bytes = bytes_per_block(decoder.kv_shapes, block_size, decoder.dtype)
    max_num_seqs = config.max_num_seqs or (64 if on_cpu else 256)
    max_num_batched_tokens = config.max_num_batched_tokens or _default_token_budget(decoder)
    if config.max_num_batched_tokens is None and config.measure_limits != "never":
        # A default that is about to be measured cuts nothing off: as many are measured as are to run.
        max_num_batched_tokens = max(max_num_batched_tokens, max_num_seqs)
    # Sequences beyond the step's token budget would run only when others have ended.
    max_num_seqs = min(max_num_seqs, max_num_batched_tokens)
    model_len = _model_len(decoder)
    _require(
        config.max_model_len is None or config.max_model_len <= model_len,
        f"--max-model-len is {config.max_model_len}, but the model was made for {model_len} tokens.",
    )
    wanted_len = config.max_model_len or model_len
    most_blocks = max_num_seqs * -(-wanted_len // block_size)
    num_blocks = _num_blocks(config, decoder, most_blocks, max_num_seqs, max_num_batched_tokens)
    capacity = num_blocks * block_size
    _require(
        config.max_model_len is None or config.max_model_len <= capacity,
        f"The KV cache holds {capacity} tokens, fewer than --max-model-len: give it more --kv-cache-memory.",
    )
    return Limits(
        max_model_len=min(wanted_len, capacity),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_blocks=num_blocks,
        block_size=block_size,
        kv_cache_bytes=num_blocks * block_bytes,
    )


def _num_blocks(config: EngineConfig, decoder: Decoder, most: int, num_seqs: int, num_tokens: int) -> int:
    """Of the KV cache: at most `most`."""
    block_bytes = bytes_per_block(decoder.kv_shapes, decoder.block_size, decoder.dtype)
    num_bytes = kv_cache_bytes(config, decoder, max(2, most) * block_bytes, num_seqs, num_tokens)
    flag = "--gpu-memory" if config.gpu_memory is not None and config.kv_cache_memory is None else "--kv-cache-memory"
    _require(
        num_bytes >= 2 * block_bytes,
        f"{flag} is too small: {2 * block_bytes} bytes of KV cache hold two blocks of {decoder.block_size} tokens.",
    )
    return min(num_bytes // block_bytes, most)


def with_measured(limits: Limits, sizes: StepSizes, profile: StepProfile) -> Limits:
    """The limits with measured sizes in the place of the settled ones, and what speed they are good for."""
    num_seqs, budget = sizes.max_num_seqs.number, sizes.max_num_batched_tokens.number
    step_s, prompt_s = profile.decode_s(num_seqs), profile.prefill_s(budget)
    return msgspec.structs.replace(
        limits,
        max_num_seqs=num_seqs,
        max_num_batched_tokens=budget,
        measured=True,
        tpot_ms=round(1e3 * step_s, 3),
        decode_tokens_per_s=round(num_seqs / step_s, 1),
        prefill_tokens_per_s=round(budget / prompt_s, 1),
    )


def explain_kv_cache(config: EngineConfig, limits: Limits, device: torch.device) -> str:
    """How large the cache is, and why."""
    size = f"{limits.kv_cache_bytes / (1 << 20):,.0f} MiB, {limits.num_blocks * limits.block_size:,} tokens"
    most = f"at most what {limits.max_num_seqs} sequences of {limits.max_model_len} tokens need"
    if config.kv_cache_memory is not None:
        return f"{size}: as asked for, {most}"
    if device.type == "cpu":
        return f"{size}: {CPU_SHARE:.0%} of the free memory, at most {CPU_DEFAULT_MAX >> 30} GiB, and {most}"
    if config.gpu_memory is not None:
        return f"{size}: what --gpu-memory leaves beside weights and steps, and {most}"
    return f"{size}: {DEFAULT_SHARE:.0%} of the free memory less what steps need, and {most}"


def _require_measurable(config: EngineConfig) -> None:
    _require(
        config.measure_limits in MEASURING,
        f"--measure-limits {config.measure_limits!r} is not known: use {', '.join(MEASURING)}.",
    )
    for name in _TARGETS:
        value, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        _require(value is None or 0 < value < math.inf, f"{flag} must be more than 0 milliseconds.")
        _require(
            value is None or config.measure_limits != "never",
            f"{flag} needs measured steps: leave out --measure-limits never.",
        )


def _require_positive(config: EngineConfig) -> None:
    for name, least in _LEAST.items():
        value = getattr(config, name)
        _require(value is None or value >= least, f"--{name.replace('_', '-')} must be at least {least}.")


def _model_len(decoder: Decoder) -> int:
    """Tokens that the model was made for. A model with LongRoPE turns a whole batch by other angles as soon as one text
    in it is longer than the original length: up to that length, texts do not disturb each other."""
    model_len = getattr(decoder.config, "max_position_embeddings", None) or _DEFAULT_MODEL_LEN
    rope = getattr(decoder.config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # for all layers, or for each type
    long = [kind for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(int(length) for length in (model_len, *(kind["original_max_position_embeddings"] for kind in long)))


def _default_token_budget(decoder: Decoder) -> int:
    if decoder.device.type != "cpu":
        return 8192
    return 64 if decoder.dtype.itemsize == 4 else 128


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequestError(message)
