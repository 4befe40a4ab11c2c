"""Models of which only the shape counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.gpu.measurements import MeasurementFile
from benchmarks.gpu.model_shapes import LLAMA_1B, LLAMA_8B, SHAPES, SMOLLM2, TINY, made_up_tokenizer, write_shape
from benchmarks.gpu.offline import measure
from benchmarks.gpu.roofline import kv_bytes_per_token, step_bytes, weight_bytes_per_step
from benchmarks.gpu.tasks import OfflineTask, Workload
from benchmarks.gpu.titles import CACHED, LOADING, READY, STEP_GB


def test_every_token_has_a_text_of_its_own() -> None:
    tokenizer = made_up_tokenizer(2000)
    assert tokenizer.get_vocab_size() == 2000
    texts = [tokenizer.decode([token]) for token in range(256, 1999)]
    assert len(set(texts)) == len(texts)
    assert all(texts)
    assert tokenizer.decode(tokenizer.encode("Grüße, 日本").ids) == "Grüße, 日本"


@pytest.mark.parametrize("name", SHAPES)
def test_folders_have_a_tokenizer_as_large_as_the_model(name: str, tmp_path: Path) -> None:
    folder = write_shape(SHAPES[name], tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert tokenizer.token_to_id("</s>") == config["eos_token_id"] == config["vocab_size"] - 1


def test_bytes_of_a_step(tmp_path: Path) -> None:
    large, middle, small = (write_shape(shape, tmp_path / shape.name) for shape in (LLAMA_8B, LLAMA_1B, SMOLLM2))
    # 8.03 billion numbers, but of the embedding's 0.53 a step takes one row
    assert weight_bytes_per_step(large, 2) == pytest.approx(2 * (8.03e9 - 128256 * 4096), rel=1e-3)
    # tied: the embedding is the output layer too
    assert weight_bytes_per_step(middle, 2) == pytest.approx(2 * 1.236e9, rel=1e-3)
    assert weight_bytes_per_step(small, 2) == pytest.approx(2 * 134.5e6, rel=1e-3)
    assert kv_bytes_per_token(large, 2) == 2 * 32 * 8 * 128 * 2
    assert step_bytes(large, 2, 8, 100.0) == weight_bytes_per_step(large, 2) + 800 * kv_bytes_per_token(large, 2)


def test_a_shape_is_served_with_random_weights(tmp_path: Path) -> None:
    workload = Workload(name="it", sequences=3, concurrency=2, input_tokens=40, output_tokens=4, shared=0.9, repeats=2)
    config = {"device": "cpu", "dtype": "bfloat16", "decoder": "fused-torch", "load_format": "dummy"}
    task = OfflineTask(
        part="p",
        model=TINY.name,
        case="default",
        folder=str(write_shape(TINY, tmp_path / TINY.name)),
        config=config | {"kv_cache_memory": 1_000_000, "max_num_seqs": 4},
        workloads=[workload, Workload(name="alone", sequences=1, input_tokens=40, output_tokens=4)],
        seed=1,
    )
    found = MeasurementFile(tmp_path / "found.jsonl")
    measure(task, found)
    loading, first, second, alone = found.read()
    assert loading.workload == LOADING
    assert loading.figures[READY] > 0
    assert [(each.workload, each.repeat) for each in (first, second, alone)] == [("it", 1), ("it", 2), ("alone", 1)]
    assert first.figures[CACHED] == pytest.approx(100 * 32 / 40)  # two blocks of 16, of the 36 tokens that are alike
    step_gb = step_bytes(Path(task.folder), 2, 1, 42.0) / 1e9
    assert alone.figures[STEP_GB] == pytest.approx(step_gb)
