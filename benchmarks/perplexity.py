"""What a precision costs in quality: `python -m benchmarks.perplexity --tokens 10000`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console

from benchmarks.english_text import EnglishText, language_reference, text_file
from benchmarks.errors import BenchmarkError
from benchmarks.flags import new_parser, positive, recorded
from benchmarks.machine import this_machine
from benchmarks.outcome import DEFAULT_FOLDER
from benchmarks.stopping import INTERRUPTED
from benchmarks.stored_result import StoredResult
from benchmarks.tables import TextTable
from vfastml.errors import VFastMLError
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.decoders.decoder import Decoder, ForwardPass
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.device import settle_device
from vfastml.text_engine.engine_config import DECODERS, EngineConfig
from vfastml.text_engine.engine_loader import settle_dtype
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.load_options import LoadOptions
from vfastml.text_engine.prompt_encoder import load_prompt_encoder

PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
}
"""The engine's settings; the first is what the others are compared with."""

_CHUNK_TOKENS = 128


class Figure(msgspec.Struct, kw_only=True):
    """Of one precision."""

    precision: str
    decoder: str
    """Its kind."""
    tokens: int
    """That were predicted: all but the first of each window."""
    perplexity: float
    seconds: float


class PerplexityResult(StoredResult, kw_only=True):
    """What is stored."""

    model: str
    text: str
    sha256: str
    window: int
    figures: list[Figure]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the model or the text cannot be used, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    console = Console()
    try:
        text = text_file(args.text) if args.text else language_reference()
        stored = resolve_model(args.model_uri)
        result = PerplexityResult(
            date=datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"),
            command=["python", "-m", "benchmarks.perplexity", *recorded(given)],
            model=stored.model_id,
            text=text.source,
            sha256=text.sha256,
            window=args.window,
            machine=this_machine(),
            figures=[],
        )
        console.print(f"{text.source}, SHA-256 {text.sha256}", highlight=False, soft_wrap=True)
        for precision in args.precisions:
            figure = measure(stored.folder, text, precision, args)
            console.print(f"{precision} ({figure.decoder}): {figure.seconds:.1f} s", highlight=False)
            result.figures.append(figure)
    except (BenchmarkError, ModelStoreError, VFastMLError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    _publish(result, args.output, console)
    return 0


def measure(folder: Path, text: EnglishText, precision: str, args: argparse.Namespace) -> Figure:
    """Loads the model anew. Raises VFastMLError if it cannot be computed with in that precision, and
    BenchmarkError if there is nothing to predict."""
    decoder = _load(folder, precision, args)
    encoder = load_prompt_encoder(folder, num_embeddings=decoder.vocab_size)
    tokens = encoder.encode_text(text.text, max_tokens=sys.maxsize, add_special_tokens=False)[: args.tokens]
    if len(tokens) < 2:
        raise BenchmarkError("The text has fewer than two tokens: give a longer one with --text.")
    block_size = decoder.block_size
    num_blocks = -(-args.window // block_size)
    forward = decoder.on(KVCache(decoder.kv_shapes, num_blocks, block_size, decoder.dtype, decoder.device))
    began = time.perf_counter()
    windows = [tokens[start : start + args.window] for start in range(0, len(tokens), args.window)]
    surprise = sum(_surprise(forward, window, block_size, decoder.device) for window in windows)
    predicted = len(tokens) - len(windows)
    return Figure(
        precision=precision,
        decoder=decoder.kind,
        tokens=predicted,
        perplexity=math.exp(surprise / predicted),
        seconds=time.perf_counter() - began,
    )


def _load(folder: Path, precision: str, args: argparse.Namespace) -> Decoder:
    config = EngineConfig(decoder=args.decoder, **PRECISIONS[precision])
    device = settle_device("cpu" if config.quantization else args.device)
    dtype = settle_dtype(config.dtype, folder, device)
    decoder = load_decoder(folder, config, LoadOptions(), name=folder.name, device=device, dtype=dtype)
    check_decoder(decoder)
    return decoder


@torch.inference_mode()
def _surprise(forward: ForwardPass, window: Sequence[int], block_size: int, device: torch.device) -> float:
    """The sum of -log p over all tokens of the window but the first, each given those before it."""
    total = 0.0
    for start in range(0, len(window) - 1, _CHUNK_TOKENS):
        end = min(start + _CHUNK_TOKENS, len(window) - 1)
        logits = forward(_chunk(window, start, end, block_size, device))
        targets = torch.tensor(window[start + 1 : end + 1], device=device)
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    return total


def _chunk(window: Sequence[int], start: int, end: int, block_size: int, device: torch.device) -> BatchInputs:
    """Tokens start to end of a sequence that lies in blocks 0, 1, 2 ...; the logits of each are wanted."""
    positions = torch.arange(start, end, device=device)
    blocks = -(-end // block_size)
    return BatchInputs(
        input_ids=torch.tensor(window[start:end], device=device),
        position_ids=positions,
        slots=positions.clone(),
        logits_index=torch.arange(end - start, device=device),
        query_starts=np.array([0, end - start], dtype=np.int32),
        context_lens=np.array([end], dtype=np.int32),
        block_tables=np.arange(blocks, dtype=np.int32),
        block_starts=np.array([0, blocks], dtype=np.int32),
    )


def _publish(result: PerplexityResult, folder: Path, console: Console) -> None:
    base = result.figures[0]
    header = ["", "tokens", "perplexity", f"to {base.precision}", "decoder"]
    rows = [
        [
            each.precision,
            f"{each.tokens}",
            f"{each.perplexity:.3f}",
            f"{each.perplexity / base.perplexity:.4f}x",
            each.decoder,
        ]
        for each in result.figures
    ]
    console.print(TextTable(f"{result.model}, windows of {result.window} tokens", header, rows).rich())
    path = folder / f"perplexity-{result.date}.json"
    result.save(path)
    console.print(f"written: {path}", highlight=False, soft_wrap=True)


def _precisions(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in PRECISIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is unknown: use {', '.join(PRECISIONS)}")
    return found


def _several(text: str) -> int:
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError("one token predicts nothing")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.perplexity", "Perplexity of a text in several precisions.")
    add = parser.add_argument
    add("--tokens", type=_several, default=10000, metavar="N", help="of the text, from its beginning")
    add("--window", type=_several, default=512, metavar="N", help="tokens that are read together, from nothing")
    precisions = "with commas between; the ratios are to the first"
    add("--precisions", type=_precisions, default=",".join(PRECISIONS), metavar="NAME,NAME", help=precisions)
    add("--model-uri", default=DEFAULT_MODEL, help="as the model server takes it")
    add("--decoder", choices=DECODERS, default="auto", help="as the model server takes it")
    add("--device", default="cpu", help="for all but int8, which is computed on a CPU")
    add("--text", type=Path, metavar="FILE", help="default: the prose of Python's language reference")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
