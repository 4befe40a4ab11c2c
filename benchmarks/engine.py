"""The engine by itself, in this process: `python -m benchmarks.engine MODE`, as `--help` says."""

from __future__ import annotations

import argparse
import functools
import gc
import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.engine_overhead import measure_overhead, prefix_cache_work_ms
from benchmarks.engine_records import EngineResult, EngineRun, draw, table
from benchmarks.engine_requests import answer
from benchmarks.engine_sampling import measure_sampling
from benchmarks.flags import counts, new_parser, new_seed, positive, recorded
from benchmarks.machine import this_machine
from benchmarks.memory_bandwidth import WeightReading, weight_bytes
from benchmarks.outcome import DEFAULT_FOLDER
from benchmarks.stopping import until_stopped
from vfastml.engine.dispatch_requests import Constraint
from vfastml.errors import VFastMLError
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.device import settle_device
from vfastml.text_engine.engine_config import DECODERS, QUANTIZATIONS, EngineConfig, parse_memory
from vfastml.text_engine.engine_loader import LoadedEngine, load_engine
from vfastml.text_engine.prompt_encoder import load_prompt_encoder

_WARM_UP_TOKENS = 2
_TIMED_TOKENS = 24
_SHARED = 0.9
"""Of a prompt: the part that is alike where prompts share one."""
_LEAST_STEP_TOKENS = 128
_NO_CACHE = "0 % share, no cache"
_COLD = "0 % share"
_PLAIN, _MASKED = "plain", "JSON schema"
_ENDLESS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 10_000}
"""No answer of a benchmark comes to its end."""
_CACHE_WORK = "cache's own work, ms a request"
"""CPU time: the difference of two throughputs does not show a hundredth."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the model cannot be loaded, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    return until_stopped(lambda: _run(args, given))


def _run(args: argparse.Namespace, given: list[str]) -> int:
    machine, date = this_machine(), datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        stored = resolve_model(args.model_uri)
        runs = args.measure(stored.folder, args)
    except (ModelStoreError, VFastMLError) as error:
        print(error, file=sys.stderr)
        return 1
    left_out = ("measure", "mode", "output", "model_uri")
    settings = {name: value for name, value in vars(args).items() if name not in left_out} | {"model": stored.model_id}
    command = ["python", "-m", "benchmarks.engine", *recorded(given)]
    result = EngineResult(mode=args.mode, date=date, command=command, settings=settings, machine=machine, runs=runs)
    _publish(result, args.output)
    return 0


def overhead(folder: Path, args: argparse.Namespace) -> list[EngineRun]:
    """The engine's own work in a step."""
    encoder = load_prompt_encoder(folder, num_embeddings=1 << 30)
    rng = random.Random(args.seed)
    gc.freeze()
    return [
        EngineRun(case="", sequences=size, repeat=repeat, figures=measure_overhead(encoder, size, args.steps, rng))
        for repeat in range(1, args.repeats + 1)
        for size in args.batch
    ]


def sampling(folder: Path, args: argparse.Namespace) -> list[EngineRun]:
    """Choosing the tokens of a step, by what the requests ask for."""
    encoder = load_prompt_encoder(folder, num_embeddings=1 << 30)
    rng = random.Random(args.seed)
    return [
        EngineRun(case="", sequences=size, repeat=repeat, figures=measure_sampling(encoder, size, args.steps, rng))
        for repeat in range(1, args.repeats + 1)
        for size in args.batch
    ]


def throughput(folder: Path, args: argparse.Namespace) -> list[EngineRun]:
    """New prompts in every run, all of them at once."""
    loaded = _load(folder, args)
    rng = random.Random(args.seed)
    for batch in args.batch:
        answer(loaded.engine, _prompts(loaded, batch, args, rng), _WARM_UP_TOKENS)
    reading = None
    if loaded.device == "cpu" and 1 in args.batch:
        bytes_per_step = weight_bytes(folder, args.quantization or loaded.dtype)
        reading = WeightReading(bytes_per_step, torch.get_num_threads())
    runs = []
    for repeat in range(1, args.repeats + 1):
        for batch in args.batch:
            answers = answer(loaded.engine, _prompts(loaded, batch, args, rng), args.output_tokens)
            figures = answers.figures(batch * args.input_tokens)
            if batch == 1 and reading:
                figures |= reading.figures(lambda: _decode_step_s(loaded, args, rng))
            runs.append(EngineRun(case=loaded.decoder, sequences=batch, repeat=repeat, figures=figures))
    return runs


def prefix(folder: Path, args: argparse.Namespace) -> list[EngineRun]:
    """Prompts of which some share their first 90 % with one that was answered before, beside prompts that share
    nothing, with and without a prefix cache; in turns."""
    loaded = _load(folder, args, kv_cache_memory=args.kv_cache_memory)
    without = _load(folder, args, kv_cache_memory=args.kv_cache_memory, enable_prefix_caching=False)
    rng = random.Random(args.seed)
    for engine in (loaded, without):
        _fill(engine, args, rng)
    runs = []
    for repeat in range(1, args.repeats + 1):
        for batch in args.batch:
            engines = {_NO_CACHE: (without, 0)} | {f"{share} % share": (loaded, share) for share in (0, *args.shares)}
            for case, (engine, share) in rng.sample(list(engines.items()), k=len(engines)):
                figures = _prefix_figures(engine, batch, share, args, rng)
                if case == _COLD:
                    work_ms = prefix_cache_work_ms(args.input_tokens, args.output_tokens, rng)
                    requests_per_s = figures["output tokens/s"] / args.output_tokens
                    figures |= {_CACHE_WORK: work_ms, "cache's own work, %": work_ms * requests_per_s / 10}
                runs.append(EngineRun(case=case, sequences=batch, repeat=repeat, figures=figures))
    return runs


def masking(folder: Path, args: argparse.Namespace) -> list[EngineRun]:
    """New prompts in every run, with and without a JSON schema for the answers; in turns."""
    loaded = _load(folder, args)
    rng = random.Random(args.seed)
    assert loaded.compiler is not None
    schema = Constraint("json_schema", json.dumps(_ENDLESS_SCHEMA))
    matchers: dict[str, Callable[[], TokenMatcher | None]] = {
        _PLAIN: lambda: None,
        _MASKED: functools.partial(loaded.compiler.matcher, schema),
    }
    for batch in args.batch:
        answer(loaded.engine, _prompts(loaded, batch, args, rng), _WARM_UP_TOKENS, matchers[_MASKED])
    runs = []
    for repeat in range(1, args.repeats + 1):
        for batch in args.batch:
            for case, new_matcher in rng.sample(list(matchers.items()), k=len(matchers)):
                prompts = _prompts(loaded, batch, args, rng)
                answers = answer(loaded.engine, prompts, args.output_tokens, new_matcher)
                figures = answers.figures(batch * args.input_tokens)
                runs.append(EngineRun(case=case, sequences=batch, repeat=repeat, figures=figures))
    return runs


def _fill(loaded: LoadedEngine, args: argparse.Namespace, rng: random.Random) -> None:
    """Every block of the KV cache is used once: its memory is the system's to give only now, which takes time, and a
    cache that has been served from for a while has no free blocks that no text lies in."""
    prompts = -(-loaded.limits.num_blocks * loaded.limits.block_size // args.input_tokens)
    answer(loaded.engine, _prompts(loaded, prompts, args, rng), 1)


def _prefix_figures(
    loaded: LoadedEngine, batch: int, share: int, args: argparse.Namespace, rng: random.Random
) -> dict[str, float]:
    first, *prompts = _prompts(loaded, 1 + batch, args, rng)
    common = first[: int(_SHARED * len(first))]
    for prompt in prompts[: round(batch * share / 100)]:
        prompt[: len(common)] = common
    answer(loaded.engine, [first], 1)
    answers = answer(loaded.engine, prompts, args.output_tokens)
    num_prompt_tokens = batch * args.input_tokens
    return answers.figures(num_prompt_tokens) | {"cached, %": 100 * answers.cached_tokens / num_prompt_tokens}


def _decode_step_s(loaded: LoadedEngine, args: argparse.Namespace, rng: random.Random) -> float:
    """Of one sequence."""
    return statistics.median(answer(loaded.engine, _prompts(loaded, 1, args, rng), _TIMED_TOKENS).full_steps_s)


def _load(folder: Path, args: argparse.Namespace, **config: Any) -> LoadedEngine:
    asked = EngineConfig(
        device=args.device,
        dtype=args.dtype,
        decoder=args.decoder,
        quantization=args.quantization,
        max_num_seqs=max(args.batch),
        max_num_batched_tokens=_step_tokens(args),
        measure_limits="never",
    )
    return load_engine(folder, replace(asked, **config), lambda phase: None)


def _step_tokens(args: argparse.Namespace) -> int | None:
    """Room in a step for a token of each sequence, or fewer would run than the record says. None on a GPU: by default
    there is room for many more."""
    given: int | None = args.max_num_batched_tokens
    if given is None and settle_device(args.device).type != "cpu":
        return None
    batch: list[int] = args.batch
    return max(given or _LEAST_STEP_TOKENS, *batch)


def _prompts(loaded: LoadedEngine, number: int, args: argparse.Namespace, rng: random.Random) -> list[list[int]]:
    vocabulary = range(loaded.encoder.vocab_size)
    return [rng.choices(vocabulary, k=args.input_tokens) for _ in range(number)]


def _publish(result: EngineResult, folder: Path) -> None:
    console = Console()
    console.print(table(result).rich())
    console.print(f"{result.machine}", highlight=False)
    for line in _notes(result):
        console.print(line, highlight=False)
    stem = folder / f"engine-{result.mode}-{result.date}"
    result.save(stem.with_suffix(".json"))
    draw(result, stem.with_suffix(".png"))
    console.print(f"written: {stem}.json and .png", highlight=False, soft_wrap=True)


def _notes(result: EngineResult) -> list[str]:
    """What was to be found out, at each number of sequences."""
    sizes = sorted({run.sequences for run in result.runs})
    of_size = {size: [run for run in result.runs if run.sequences == size] for size in sizes}
    if result.mode == "prefix":
        return [note for runs in of_size.values() for note in _prefix_notes(runs, result.settings.get("shares", []))]
    return [_masking_note(runs) for runs in of_size.values()] if result.mode == "masking" else []


def _masking_note(runs: Sequence[EngineRun]) -> str:
    of_case = _rates(runs)
    costs = [100 * (1 - masked / plain) for masked, plain in zip(of_case[_MASKED], of_case[_PLAIN], strict=True)]
    return f"n={runs[0].sequences}: masks cost {_spread(costs)} % of tokens/s"


def _rates(runs: Sequence[EngineRun]) -> dict[str, list[float]]:
    """Tokens per second of each case, in the order of the runs."""
    of_case: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        of_case[run.case].append(run.figures["output tokens/s"])
    return of_case


def _prefix_notes(runs: Sequence[EngineRun], shares: Sequence[int]) -> list[str]:
    size, of_case = f"n={runs[0].sequences}", _rates(runs)
    # runs of the same repeat are seconds apart: an hour's drift of the machine is in both
    gains = {
        share: [a / b for a, b in zip(of_case[f"{share} % share"], of_case[_COLD], strict=True)] for share in shares
    }
    costs = [100 * (1 - a / b) for a, b in zip(of_case[_COLD], of_case[_NO_CACHE], strict=True)]
    return [
        *(
            f"{size}: {share} % of the prompts share 90 %: {_spread(of)} times the tokens/s"
            for share, of in gains.items()
        ),
        f"{size}: the cache costs {_spread(costs)} % of tokens/s where nothing is shared",
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.engine", "The engine by itself, without HTTP.")
    modes = parser.add_subparsers(dest="mode", required=True)
    each = {measure.__name__: _mode(modes, measure) for measure in (overhead, sampling, throughput, masking, prefix)}
    each["overhead"].add_argument("--steps", type=positive, default=300, metavar="N", help="of a run")
    each["sampling"].add_argument("--steps", type=positive, default=20, metavar="N", help="of a run")
    each["sampling"].set_defaults(batch=counts("1,64"))
    step_tokens = "as the model server takes it, but no less than the largest batch"
    for mode, batch, input_tokens in (("throughput", "1,8,32", 128), ("masking", "1,32", 128), ("prefix", "8", 512)):
        add = each[mode].add_argument
        add("--input-tokens", type=positive, default=input_tokens, metavar="N", help="length of every prompt")
        add("--output-tokens", type=positive, default=64, metavar="N", help="length of every answer")
        add("--decoder", choices=DECODERS, default="auto", help="as the model server takes it")
        add("--quantization", choices=QUANTIZATIONS, help="as the model server takes it")
        add("--dtype", default="auto", help="as the model server takes it")
        add("--device", default="auto", help="as the model server takes it")
        add("--max-num-batched-tokens", type=positive, metavar="N", help=step_tokens)
        each[mode].set_defaults(batch=counts(batch))
    shares = "percent of the prompts that share 90 %% with one that was answered before"
    memory = "as the model server takes it; both caches are filled before anything is measured"
    each["prefix"].add_argument("--kv-cache-memory", type=parse_memory, default="256MB", metavar="SIZE", help=memory)
    each["prefix"].add_argument("--shares", type=counts, default="50,100", metavar="P,P", help=shares)
    return parser


def _mode(modes: Any, measure: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = modes.add_parser(
        measure.__name__, help=(measure.__doc__ or "").replace("%", "%%")
    )
    parser.set_defaults(measure=measure)
    add = parser.add_argument
    add("--model-uri", default=DEFAULT_MODEL, help="as the model server takes it")
    add("--batch", type=counts, default="1,32,256", metavar="N,N", help="sequences that run side by side")
    add("--repeats", type=positive, default=3, metavar="N", help="runs of each size")
    add("--seed", type=int, metavar="N", help="of the prompts; default: a new one, which is stored")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
