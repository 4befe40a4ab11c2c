"""transformers on the same shape: `generate` on a static batch, and its own continuous batching."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks.engine_titles import TOKENS_PER_S
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import part_program
from benchmarks.gpu.tasks import TransformersTask, Workload
from benchmarks.hf_batch import ContinuousBatches
from benchmarks.hf_generate import generate_static
from benchmarks.hf_labels import CONTINUOUS, STATIC
from benchmarks.metrics import measure as figures_of
from benchmarks.records import RequestRecord
from vfastml.text_engine.decoders.random_model import random_hf_model

_WARM_UP_TOKENS = 8


def measure(task: TransformersTask, found: MeasurementFile) -> None:
    """First `generate`, then `generate_batch`."""
    model, rng = random_model(Path(task.folder), task.dtype, task.device), random.Random(task.seed)
    for workload in task.static:
        generate_static(model, _prompts(model, workload, rng), min(_WARM_UP_TOKENS, workload.output_tokens))
        records = generate_static(model, _prompts(model, workload, rng), workload.output_tokens)
        found.add(_measurement(task, STATIC, workload, records))
    for workload in task.continuous:
        batches = ContinuousBatches(model, workload.sequences, workload.input_tokens + workload.output_tokens)
        try:
            batches.generate(_prompts(model, workload, rng), min(_WARM_UP_TOKENS, workload.output_tokens))
            records = batches.generate(_prompts(model, workload, rng), workload.output_tokens)
        finally:
            batches.close()
        found.add(_measurement(task, CONTINUOUS, workload, records))


def random_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Of the config in `folder`; the weights are made on the device."""
    model = random_hf_model(folder, device=torch.device(device), dtype=getattr(torch, dtype))
    model.generation_config.pad_token_id = 0
    return model.eval()


def _prompts(model: PreTrainedModel, workload: Workload, rng: random.Random) -> torch.Tensor:
    vocabulary = range(model.config.vocab_size - 1)
    rows = [rng.choices(vocabulary, k=workload.input_tokens) for _ in range(workload.sequences)]
    return torch.tensor(rows, device=model.device)


def _measurement(task: TransformersTask, method: str, workload: Workload, records: list[RequestRecord]) -> Measurement:
    run = figures_of(records, client_cpu_s=None)
    known = {TOKENS_PER_S: run.output_tokens_per_s, "TTFT p50, ms": run.ttft_p50_s, "TPOT p50, ms": run.tpot_p50_s}
    scales = {TOKENS_PER_S: 1.0}
    return Measurement(
        part=task.part,
        model=task.model,
        case=method,
        workload=workload.name,
        settings=workload.lengths,
        figures={name: scales.get(name, 1e3) * value for name, value in known.items() if value is not None},
        notes=[f"{run.failed} of {run.requests} requests failed"] * bool(run.failed),
    )


if __name__ == "__main__":
    sys.exit(part_program(measure, TransformersTask))
