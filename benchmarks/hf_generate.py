"""The offline yardsticks: transformers' own `generate` on static batches, and its `generate_batch`, without a server.

`python -m benchmarks.hf_generate --batch 1,8,32 --input-tokens 128 --output-tokens 64`
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers import AutoModelForCausalLM, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from benchmarks.comparison import OFFLINE
from benchmarks.flags import counts, new_parser, new_seed, positive, recorded
from benchmarks.hf_batch import ContinuousBatches
from benchmarks.hf_labels import LABELS, STATIC
from benchmarks.machine import this_machine
from benchmarks.metrics import measure
from benchmarks.outcome import DEFAULT_FOLDER, publish
from benchmarks.records import TOKENS_STREAMED, BenchmarkResult, RequestRecord, Run
from benchmarks.stopping import INTERRUPTED
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model

Generate = Callable[[torch.Tensor, int], list[RequestRecord]]
"""Prompts [rows, tokens], and the length of each answer."""

_WARM_UP_TOKENS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the model cannot be loaded, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(given)
    args.seed = new_seed() if args.seed is None else args.seed
    console = Console()
    date, machine, began = datetime.now().astimezone(), this_machine(), time.perf_counter()
    runs: list[Run] = []
    facts: dict[str, Any] = {"transformers": transformers.__version__, "torch": str(torch.__version__)}
    try:
        stored = resolve_model(args.model_uri)
        facts["model"] = stored.model_id
        model = load(stored.folder, args.dtype, args.device)
        with _method(model, args) as generate:
            _warm_up(model, generate, args)
            facts["ready_s"] = [time.perf_counter() - began]
            measure_all(model, generate, args, runs)
    except ModelStoreError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    if runs:
        result = BenchmarkResult(
            label=args.label or LABELS[args.method],
            date=date.strftime("%Y%m%d-%H%M%S"),
            command=["python", "-m", "benchmarks.hf_generate", *recorded(given)],
            settings=_settings(args),
            server=facts | {"resident_mb": [_peak_resident_mb()]},
            machine=machine,
            runs=runs,
        )
        publish(result, args.output, console)
    return 0 if len(runs) == len(args.batch) * args.repeats else INTERRUPTED


def load(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Ready to generate."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    model.generation_config.pad_token_id = model.generation_config.pad_token_id or 0
    return model


def measure_all(model: PreTrainedModel, generate: Generate, args: argparse.Namespace, runs: list[Run]) -> None:
    """Each batch size once, then all of them again; `runs` grows."""
    for repeat in range(1, args.repeats + 1):
        for batch in args.batch:
            runs.append(_run(model, generate, batch, repeat, args))


@contextmanager
def _method(model: PreTrainedModel, args: argparse.Namespace) -> Iterator[Generate]:
    if args.method == STATIC:
        yield lambda prompts, tokens: generate_static(model, prompts, tokens)
        return
    batches = ContinuousBatches(model, max(args.batch), args.input_tokens + args.output_tokens)
    try:
        yield batches.generate
    finally:
        batches.close()


def _warm_up(model: PreTrainedModel, generate: Generate, args: argparse.Namespace) -> None:
    rng = random.Random(args.seed)
    for batch in args.batch:
        generate(_prompts(model, batch, args.input_tokens, rng), _WARM_UP_TOKENS)


def _peak_resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def generate_static(model: PreTrainedModel, prompts: torch.Tensor, tokens: int) -> list[RequestRecord]:
    """One static batch, greedy, exactly that many tokens for each row. A token is there when its step has ended."""
    steps = _StepTimes(time.perf_counter())
    with torch.inference_mode():
        made: Any = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([steps]),
        )
    output_tokens = made.shape[1] - prompts.shape[1]
    return [
        RequestRecord(
            started_s=0.0,
            e2e_s=steps.since_start[-1],
            asked_tokens=tokens,
            chunks_s=steps.since_start,
            input_tokens=prompts.shape[1],
            output_tokens=output_tokens,
            finish_reason="length",
        )
        for _ in range(len(prompts))
    ]


class _StepTimes(StoppingCriteria):  # type: ignore[misc]
    """Called by `generate` after every step; never stops it."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.since_start: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        never = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        self.since_start.append(time.perf_counter() - self._began)
        return never


def _run(model: PreTrainedModel, generate: Generate, batch: int, repeat: int, args: argparse.Namespace) -> Run:
    seed = random.Random(f"{args.seed}/{batch}/{repeat}").getrandbits(32)
    prompts = _prompts(model, batch, args.input_tokens, random.Random(seed))
    records = generate(prompts, args.output_tokens)
    return Run(
        concurrency=batch,
        repeat=repeat,
        seed=seed,
        tokens_from=TOKENS_STREAMED,
        metrics=measure(records, client_cpu_s=None),
        records=records,
    )


def _prompts(model: PreTrainedModel, batch: int, tokens: int, rng: random.Random) -> torch.Tensor:
    vocabulary = range(model.config.get_text_config().vocab_size)
    return torch.tensor([rng.choices(vocabulary, k=tokens) for _ in range(batch)], device=model.device)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("dtype", "device", "input_tokens", "output_tokens", "repeats", "seed")
    return {name: getattr(args, name) for name in names} | {"endpoint": OFFLINE, "range_ratio": 0.0}


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("python -m benchmarks.hf_generate", "transformers' generate, on batches of one length.")
    add = parser.add_argument
    add("--model-uri", default=DEFAULT_MODEL, help="as the model server takes it")
    how = "static batches, or transformers' continuous batching"
    add("--method", choices=tuple(LABELS), default=STATIC, help=how)
    add("--batch", type=counts, default="1,8,32", metavar="N,N", help="rows of a batch")
    add("--input-tokens", type=positive, default=128, metavar="N", help="length of every prompt")
    add("--output-tokens", type=positive, default=64, metavar="N", help="length of every answer")
    add("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the weights")
    add("--device", default="cpu", help="where torch runs it, for instance cuda:0")
    add("--repeats", type=positive, default=3, metavar="N", help="runs of each batch size")
    add("--seed", type=int, metavar="N", help="of the prompts; default: a new one, which is stored")
    add("--label", help="what tables and files call it; default: hf-generate or hf-batch")
    add("--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="for the JSON and the picture")
    return parser


if __name__ == "__main__":
    sys.exit(main())
