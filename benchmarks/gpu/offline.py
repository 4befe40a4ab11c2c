"""One configuration of the engine, in a process of its own, so that the next one finds the card's memory free."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_requests import answer
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import NotHereError, part_program
from benchmarks.gpu.roofline import step_bytes
from benchmarks.gpu.tasks import OfflineTask, Workload
from benchmarks.gpu.titles import CACHED, LOADING, READY, STEP_GB
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import LoadedEngine, load_engine
from vfastml.utils.garbage import settle_garbage_collection

_WARM_UP_TOKENS = 8


def measure(task: OfflineTask, found: MeasurementFile) -> None:
    """Loads once; then each workload, after a short one of its kind that does not count."""
    began = time.perf_counter()
    loaded = load_engine(Path(task.folder), engine_config(task.config), lambda phase: print(phase, flush=True))
    settle_garbage_collection()  # as a model server does
    about = Measurement(part=task.part, model=task.model, case=task.case, workload=LOADING, notes=[_about(loaded)])
    about.figures = {READY: time.perf_counter() - began, "KV blocks": loaded.limits.num_blocks}
    found.add(about)
    rng = random.Random(task.seed)
    for workload in task.workloads:
        warm_up = min(_WARM_UP_TOKENS, -(-workload.output_tokens // 2))
        answer(loaded.engine, _prompts(loaded, workload, rng), warm_up, concurrency=workload.concurrency)
        for repeat in range(1, workload.repeats + 1):
            figures = _figures(loaded, task, workload, rng)
            found.add(
                Measurement(
                    part=task.part,
                    model=task.model,
                    case=task.case,
                    workload=workload.name,
                    repeat=repeat,
                    settings=workload.lengths,
                    figures=figures,
                )
            )


def engine_config(fields: dict[str, Any]) -> EngineConfig:
    """Raises NotHereError for a field that this version does not have."""
    try:
        return EngineConfig(measure_limits="never", **fields)
    except TypeError as error:
        raise NotHereError(f"the engine has no such setting: {error}") from error


def _figures(loaded: LoadedEngine, task: OfflineTask, workload: Workload, rng: random.Random) -> dict[str, float]:
    prompts = _prompts(loaded, workload, rng)
    if workload.shared:
        answer(loaded.engine, [prompts[0][: int(workload.shared * workload.input_tokens)]], 1)
    answers = answer(loaded.engine, prompts, workload.output_tokens, concurrency=workload.concurrency)
    num_prompt_tokens = workload.sequences * workload.input_tokens
    figures = answers.figures(num_prompt_tokens)
    if workload.shared:
        figures[CACHED] = 100 * answers.cached_tokens / num_prompt_tokens
    if answers.full_steps_s and loaded.dtype != "float32" and not task.config.get("quantization"):
        context = workload.input_tokens + workload.output_tokens / 2
        figures[STEP_GB] = step_bytes(Path(task.folder), 2, workload.sequences, context) / 1e9
    return figures


def _prompts(loaded: LoadedEngine, workload: Workload, rng: random.Random) -> list[list[int]]:
    """New ones each time."""
    vocabulary = range(loaded.encoder.vocab_size - 1)  # all but the end token
    common = rng.choices(vocabulary, k=int(workload.shared * workload.input_tokens))
    own = workload.input_tokens - len(common)
    return [common + rng.choices(vocabulary, k=own) for _ in range(workload.sequences)]


def _about(loaded: LoadedEngine) -> str:
    limits = loaded.limits
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the card" if loaded.device != "cpu" else ""
    return (
        f"decoder {loaded.decoder}, {loaded.dtype} on {loaded.device}; {limits.max_num_seqs} sequences and "
        f"{limits.max_num_batched_tokens} tokens a step{memory}"
    )


if __name__ == "__main__":
    sys.exit(part_program(measure, OfflineTask))
