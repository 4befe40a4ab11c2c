"""Does the engine say what transformers says? Greedy tokens in float32, and the error of logits in the dtype that is
served."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.engine_requests import greedy_request
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.offline import engine_config
from benchmarks.gpu.part_program import NotHereError, part_program
from benchmarks.gpu.random_weights import builtin_model, save_random_model
from benchmarks.gpu.tasks import EqualityTask
from benchmarks.gpu.titles import EQUAL, ERROR, GREEDY, LOGITS, REFERENCE_ERROR
from benchmarks.kernel_bench import BLOCK_SIZE, paged_inputs
from vfastml.engine.dispatch_replies import Delta
from vfastml.errors import VFastMLError
from vfastml.text_engine.decoders.choice import load_decoder
from vfastml.text_engine.device import settle_device
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.load_options import LoadOptions
from vfastml.text_engine.text_engine import TextEngine


def measure(task: EqualityTask, found: MeasurementFile) -> None:
    """Case by case; one that cannot run here leaves a note."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (builtin_model() if task.may_be_built_in else None) or save_random_model(
            task.shape, Path(scratch) / task.shape, task.seed
        )
        rng = random.Random(task.seed)
        expected = _Expected(task, folder, rng)
        for case, config in task.cases.items():
            greedy = Measurement(part=task.part, model=folder.name, case=case, workload=GREEDY)
            logits = msgspec.structs.replace(greedy, workload=f"{LOGITS}, {task.dtype}")
            try:
                greedy.figures, greedy.settings = _greedy(task, folder, config, expected), expected.lengths
                found.add(greedy)
                logits.figures = _errors(task, folder, config, expected)
                found.add(logits)
            except (NotHereError, VFastMLError) as error:
                greedy.notes = [f"cannot run here: {error}"]
                found.add(greedy)


class _Expected:
    """What transformers computes, once for all cases."""

    def __init__(self, task: EqualityTask, folder: Path, rng: random.Random) -> None:
        model = _transformers_model(folder, "float32", task.device)
        vocabulary = range(3, model.config.vocab_size)
        self.prompts = [rng.choices(vocabulary, k=length) for length in task.prompt_lengths]
        self.tokens = [_generated(model, prompt, task.tokens) for prompt in self.prompts]
        self.lengths = {"prompts": len(self.prompts), "in": task.prompt_lengths, "out": task.tokens}
        self.rows = torch.tensor([rng.choices(vocabulary, k=task.prompt_lengths[-1]) for _ in range(task.rows)])
        self.logits = _last_logits(model, self.rows)
        rounded = _last_logits(_transformers_model(folder, task.dtype, task.device), self.rows)
        self.rounding = relative_error(rounded, self.logits)


def greedy_tokens(engine: TextEngine, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Of the answer to each prompt; all run side by side."""
    made: dict[str, list[int]] = {f"{number}": [] for number in range(len(prompts))}
    for name, prompt in zip(made, prompts, strict=True):
        engine.add(greedy_request(name, prompt, tokens, return_token_ids=True))
    while engine.has_work:
        for reply in engine.step():
            if isinstance(reply, Delta):
                made[reply.request_id] += reply.token_ids or []
    return list(made.values())


def equal_share(made: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> float:
    """Of all tokens: those before the first that differs, of each text."""
    alike = sum(_alike(*pair) for pair in zip(made, expected, strict=True))
    return alike / sum(map(len, expected))


def relative_error(values: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((values - reference).norm() / reference.norm())


def _alike(made: Sequence[int], expected: Sequence[int]) -> int:
    if len(made) != len(expected):
        return 0
    return next((n for n, (a, b) in enumerate(zip(made, expected, strict=True)) if a != b), len(expected))


def _greedy(task: EqualityTask, folder: Path, config: dict[str, Any], expected: _Expected) -> dict[str, float]:
    loaded = load_engine(folder, engine_config(config | {"dtype": "float32"}), lambda phase: None)
    made = greedy_tokens(loaded.engine, expected.prompts, task.tokens)
    return {EQUAL: 100 * equal_share(made, expected.tokens)}


def _errors(task: EqualityTask, folder: Path, config: dict[str, Any], expected: _Expected) -> dict[str, float]:
    made = _paged_logits(task, folder, config, expected.rows)
    return {
        ERROR: 100 * relative_error(made, expected.logits),
        REFERENCE_ERROR: 100 * expected.rounding,
    }


@torch.inference_mode()
def _paged_logits(task: EqualityTask, folder: Path, config: dict[str, Any], rows: torch.Tensor) -> torch.Tensor:
    """[rows, vocab], on the CPU, of a decode step after a step that has computed all tokens but the last."""
    device, dtype = settle_device(task.device), getattr(torch, task.dtype)
    asked = engine_config(config | {"dtype": task.dtype})
    decoder = load_decoder(folder, asked, LoadOptions(), name=folder.name, device=device, dtype=dtype)
    number, length = rows.shape
    num_blocks = number * -(-length // BLOCK_SIZE)
    cache = KVCache(decoder.kv_shapes, num_blocks, BLOCK_SIZE, decoder.dtype, device)
    forward = decoder.on(cache)
    for tokens, context in ((length - 1, length - 1), (1, length)):
        inputs = paged_inputs(number, tokens, context)
        ids = rows[:, context - tokens : context].flatten().contiguous()
        last = torch.arange(1, number + 1) * tokens - 1
        logits = forward(
            replace(
                inputs,
                input_ids=ids.to(device),
                position_ids=inputs.position_ids.to(device),
                slots=inputs.slots.to(device),
                logits_index=last.to(device),
            )
        )
    return logits.float().cpu()


def _transformers_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True
    )
    return model.to(device).eval()


def _generated(model: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    given = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        made: Any = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return [int(token) for token in made[0, len(prompt) :]]


@torch.inference_mode()
def _last_logits(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(row[None].to(model.device), use_cache=False).logits[:, -1].float().cpu() for row in rows])


if __name__ == "__main__":
    sys.exit(part_program(measure, EqualityTask))
