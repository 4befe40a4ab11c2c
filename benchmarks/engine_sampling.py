"""What choosing the tokens of a step costs, by what the requests ask for."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from vfastml.engine.dispatch_requests import Constraint
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.row_masks import MaskFiller
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.sampler import Sampler
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import ScheduledRow
from vfastml.text_engine.sequence import Sequence

_PROMPT_TOKENS = 128
_GENERATED_TOKENS = 64
_BARRED_WORDS = 8
_BIASED_TOKENS = 50
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "tags"],
    "additionalProperties": False,
}
_BEGUN = '{"name": "some na'
"""The text of a constrained row: within a string most tokens are allowed."""

_PLAIN = Sampling(max_tokens=1000)
_KNOBS = replace(
    _PLAIN,
    min_tokens=500,
    temperature=0.8,
    top_p=0.9,
    top_k=200,
    repetition_penalty=1.1,
    min_p=0.01,
    typical_p=0.95,
    frequency_penalty=0.5,
    presence_penalty=0.5,
    logprobs=5,
)


def measure_sampling(encoder: PromptEncoder, num_rows: int, steps: int, rng: random.Random) -> dict[str, float]:
    """The median step by kind of request: nothing but the choosing, of random logits."""
    vocab_size = encoder.vocab_size
    compiler = ConstraintCompiler(encoder.tokenizer, vocab_size, (0,))
    bias = dict.fromkeys(rng.sample(range(vocab_size), _BIASED_TOKENS), 1.0)
    barred = tuple((token,) for token in rng.sample(range(vocab_size), _BARRED_WORDS))
    kinds = {
        "greedy": replace(_PLAIN, temperature=0.0),
        "temperature": _PLAIN,
        "top_p 0.9": replace(_PLAIN, top_p=0.9),
        "greedy, 5 logprobs": replace(_PLAIN, temperature=0.0, logprobs=5),
        "greedy, JSON schema": replace(_PLAIN, temperature=0.0),
        "every knob": replace(_KNOBS, logit_bias=bias, barred_tokens=barred),
        "every knob, JSON schema": replace(_KNOBS, logit_bias=bias, barred_tokens=barred),
    }
    found = {}
    for kind, sampling in kinds.items():
        rows = [_row(sampling, vocab_size, rng, number) for number in range(num_rows)]
        if "JSON" in kind:
            _constrain(rows, compiler, encoder)
        found[f"{kind}, ms"] = _median_ms(_steps(rows, vocab_size), steps)
    return found


def _row(sampling: Sampling, vocab_size: int, rng: random.Random, number: int) -> ScheduledRow:
    tokens = rng.choices(range(vocab_size), k=_PROMPT_TOKENS + _GENERATED_TOKENS)
    sampling = replace(sampling, seed=number)
    sequence = Sequence(str(number), tokens, sampling, arrival=number, num_prompt_tokens=_PROMPT_TOKENS)
    return ScheduledRow(sequence, 1, samples=True)


def _constrain(rows: list[ScheduledRow], compiler: ConstraintCompiler, encoder: PromptEncoder) -> None:
    tokens = encoder.encode_text(_BEGUN, max_tokens=100, add_special_tokens=False)
    for row in rows:
        matcher = compiler.matcher(Constraint("json_schema", json.dumps(_SCHEMA)))
        for token in tokens:
            matcher.accept(token)
        row.sequence.matcher = matcher
        row.sequence.takes_argmax = False


def _steps(rows: list[ScheduledRow], vocab_size: int) -> Iterator[Callable[[], object]]:
    """Each is one step's work; the logits are new ones, because choosing changes them."""
    sampler, filler = Sampler((0,)), MaskFiller(vocab_size)
    logits = torch.randn(len(rows), vocab_size) * 3
    while True:
        fresh = logits.clone()
        yield lambda fresh=fresh: sampler.sample_rows(fresh, rows, filler.begin(rows))  # type: ignore[misc]


def _median_ms(steps: Iterator[Callable[[], object]], count: int) -> float:
    times = []
    with torch.inference_mode():
        for step, _ in zip(steps, range(count + 1), strict=False):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) * 1e3
