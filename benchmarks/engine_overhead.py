"""The engine's own work for a step, in CPU time of its thread, with a model that computes nothing."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.engine_requests import greedy_request
from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.detokenizer import Detokenizer
from vfastml.text_engine.engine_config import BLOCK_SIZE
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.text_engine import TextEngine

PROMPT_TOKENS = 128
_WARM_UP_STEPS = 10
_REQUESTS = 60
_CPU = torch.device("cpu")

_clock = time.thread_time


class FreeModel:
    """Runner that makes the inputs of a step and then says any token. Notes when what was done."""

    def __init__(self, tokens: list[int]) -> None:
        self._says = [[SampledToken(token)] for token in tokens]
        self.called = self.made_inputs = self.returned = 0.0

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """See Runner."""
        self.called = _clock()
        build_batch_inputs(batch, BLOCK_SIZE, _CPU)
        self.made_inputs = _clock()
        sampled = self._says[: sum(row.samples for row in batch.rows)]
        self.returned = _clock()
        return sampled

    def parts(self) -> dict[str, tuple[object, str]]:
        """See Runner."""
        return {}


class _NoWords:
    """Vocabulary without text."""

    def detokenizer(self, prompt: Sequence[int], *, keeps_special: bool = False) -> Detokenizer:
        return _NoText()

    def token_bytes(self, token: int) -> bytes:
        return b""


class _NoText:
    """Detokenizer whose work is nothing; its pieces are not empty, so that they are given out."""

    def push(self, token: int) -> str:
        return "x"

    def flush(self) -> str:
        return ""


def measure_overhead(encoder: PromptEncoder, sequences: int, steps: int, rng: random.Random) -> dict[str, float]:
    """Medians over that many steps, each with one token for every sequence."""
    tokens = rng.choices(range(encoder.vocab_size), k=sequences)
    model = FreeModel(tokens)
    engine = _decoding_engine(model, sequences, steps, rng, encoder.vocab_size)
    gc.collect()
    parts = [_step(engine, model) for _ in range(steps)]
    schedule, inputs, update = (statistics.median(part) * 1e3 for part in zip(*parts, strict=True))
    text = _text_s(encoder.detokenizer, tokens, steps) * 1e3
    step = schedule + inputs + update + text
    return {
        "schedule, ms": schedule,
        "inputs, ms": inputs,
        "update, ms": update,
        "text, ms": text,
        "step, ms": step,
        "steps/s": 1e3 / step,
    }


def prefix_cache_work_ms(input_tokens: int, output_tokens: int, rng: random.Random) -> float:
    """What the prefix cache does for a request that shares nothing: hashes, a search in vain, blocks registered and
    taken from old texts. It is the difference between an engine with a cache and one without."""
    times = {caching: _requests_s(caching, input_tokens, output_tokens, rng) for caching in (True, False)}
    return 1e3 * (times[True] - times[False])


def _requests_s(caching: bool, input_tokens: int, output_tokens: int, rng: random.Random) -> float:
    """For one request, alone."""
    length = input_tokens + output_tokens
    # as many blocks as two of them fill: each but the first takes blocks in which an earlier text lies
    limits = Limits(length, 1, length, 2 * -(-length // BLOCK_SIZE), BLOCK_SIZE)
    engine = TextEngine(FreeModel([1]), _NoWords(), limits, (), enable_prefix_caching=caching)
    times = []
    for number in range(_REQUESTS):
        prompt = [rng.randrange(1 << 16) for _ in range(input_tokens)]
        began = _clock()
        engine.add(greedy_request(f"{number}", prompt, output_tokens))
        while engine.has_work:
            engine.step()
        times.append(_clock() - began)
    return statistics.median(times)


def _decoding_engine(model: FreeModel, sequences: int, steps: int, rng: random.Random, vocab_size: int) -> TextEngine:
    """Its prompts are computed."""
    max_tokens = steps + _WARM_UP_STEPS
    num_blocks = sequences * (-(-(PROMPT_TOKENS + max_tokens) // BLOCK_SIZE) + 1)
    limits = Limits(PROMPT_TOKENS + max_tokens, sequences, sequences * PROMPT_TOKENS, num_blocks, BLOCK_SIZE)
    engine = TextEngine(model, _NoWords(), limits, ())
    for number in range(sequences):
        prompt = rng.choices(range(vocab_size), k=PROMPT_TOKENS)
        engine.add(greedy_request(f"{number}", prompt, max_tokens))
    for _ in range(_WARM_UP_STEPS - 1):
        engine.step()
    return engine


def _step(engine: TextEngine, model: FreeModel) -> tuple[float, float, float]:
    began = _clock()
    engine.step()
    ended = _clock()
    return model.called - began, model.made_inputs - model.called, ended - model.returned


def _text_s(new_detokenizer: Callable[[list[int]], Detokenizer], tokens: list[int], steps: int) -> float:
    """Seconds for a token of each sequence."""
    detokenizers = [new_detokenizer([]) for _ in tokens]
    times = []
    for _ in range(steps):
        began = _clock()
        for detokenizer, token in zip(detokenizers, tokens, strict=True):
            detokenizer.push(token)
        times.append(_clock() - began)
    return statistics.median(times)
