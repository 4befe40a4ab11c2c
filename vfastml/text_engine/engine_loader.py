"""From a folder of weights to a running engine, with each part checked on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.cuda_memory import keep_to
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.device import settle_device
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.gpu_memory import check_gpu_memory
from vfastml.text_engine.limits import settle_limits
from vfastml.text_engine.load_options import LoadOptions
from vfastml.text_engine.measured_limits import measured_limits
from vfastml.text_engine.model_kind import check_kind
from vfastml.text_engine.profile_store import ProfileKey, ProfileStore
from vfastml.text_engine.prompt_encoder import PromptEncoder, load_prompt_encoder
from vfastml.text_engine.runner_choice import make_runner
from vfastml.text_engine.sampling import settle_sampling
from vfastml.text_engine.text_engine import TextEngine

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PLAIN = LoadOptions()


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that has made a real step, and what belongs to it."""

    engine: TextEngine
    encoder: PromptEncoder
    limits: Limits
    device: str
    dtype: str
    decoder: str
    """Its kind, and whether its weights are random."""
    compiler: ConstraintCompiler | None = None
    attention: str = ""
    """See Decoder."""


def load_engine(
    folder: Path,
    config: EngineConfig,
    report: Callable[[str], None],
    *,
    options: LoadOptions = _PLAIN,
    name: str | None = None,
    profiles: Path | None = None,
) -> LoadedEngine:
    """Loads, checks, measures and warms up; `report` is told of each phase, `name` is what errors call the model, and
    `profiles` is the folder for what was measured (None: it is not kept). Raises UnsupportedError for a model that
    cannot be served, InvalidRequestError for settings that cannot work."""
    name = name or folder.name
    check_kind(folder, name)
    device = settle_device(config.device)
    check_gpu_memory(config.gpu_memory, device)
    dtype = settle_dtype(config.dtype, folder, device)
    report("loading weights")
    decoder = load_decoder(folder, config, options, name=name, device=device, dtype=dtype)
    report("loading the tokenizer")
    encoder = load_prompt_encoder(
        folder,
        num_embeddings=decoder.vocab_size,
        chat_template=config.chat_template,
        tool_call_parser=config.tool_call_parser,
        reasoning_parser=config.reasoning_parser,
    )
    report("checking the model")
    check_decoder(decoder)
    limits = settle_limits(config, decoder)
    if config.gpu_memory is not None:
        for used in {shape.device or decoder.device for shape in decoder.kv_shapes}:
            if used.type == "cuda":
                keep_to(config.gpu_memory, used)
    end_token_ids = _end_token_ids(decoder, encoder)
    runner, launch = make_runner(decoder, limits, end_token_ids, config, report)
    limits = measured_limits(
        limits,
        config,
        runner.run,
        device=decoder.device,
        key=ProfileKey.of(
            folder, decoder, str(config.quantization or options.quantization or ""), cuda_graphs=config.cuda_graphs
        ),
        store=ProfileStore(profiles),
        report=report,
    )
    engine = TextEngine(
        runner,
        encoder,
        limits,
        end_token_ids,
        enable_prefix_caching=config.enable_prefix_caching,
        launch=launch,
    )
    report("warming up")
    _warm_up(engine, limits)
    dtype_name = str(decoder.dtype).removeprefix("torch.")
    compiler = ConstraintCompiler(encoder.tokenizer, decoder.vocab_size, end_token_ids)
    kind = f"{decoder.kind}, random weights" if config.load_format == "dummy" else decoder.kind
    return LoadedEngine(engine, encoder, limits, str(decoder.device), dtype_name, kind, compiler, decoder.attention)


def settle_dtype(asked: str, folder: Path, device: torch.device) -> torch.dtype:
    """`auto` is the weights' own, but on a CPU: bfloat16 where the processor computes in it, else float32. Raises
    InvalidRequestError for an unknown name."""
    if asked in _DTYPES:
        return _DTYPES[asked]
    if asked != "auto":
        raise InvalidRequestError(f"The dtype {asked!r} is not known: use auto, {', '.join(_DTYPES)}.")
    own = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).dtype or torch.float32
    if device.type != "cpu" or own == torch.float32:
        return own
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _end_token_ids(decoder: Decoder, encoder: PromptEncoder) -> tuple[int, ...]:
    # A tokenizer may have tokens that the model lacks: those never come, and there is no logit to bar.
    found = {int(token) for token in (*decoder.end_token_ids, encoder.eos_token_id) if token is not None}
    return tuple(sorted(token for token in found if token < decoder.vocab_size))


def _warm_up(engine: TextEngine, limits: Limits) -> None:
    """One prompt and two tokens: allocates what the first real request would wait for, and proves that a step works."""
    length = max(1, min(limits.max_num_batched_tokens, limits.max_model_len - 2))
    request = TextGenerationReq(request_id="warm-up", prompt_token_ids=[1] * length, cache_salt="warm-up")
    sampling = settle_sampling(SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True), SamplingParams(), room=2)
    engine.add(EncodedRequest(request, [1] * length, sampling))
    while engine.has_work:
        engine.step(recover=False)
