from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import hf_generate
from benchmarks.records import BenchmarkResult


@pytest.mark.parametrize(("method", "label"), [("generate", "hf-generate"), ("generate_batch", "hf-batch")])
def test_batches_of_a_tiny_model(
    method: str, label: str, tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = ["--input-tokens", "6", "--output-tokens", "4", "--batch", "1,3", "--repeats", "2"]
    model = ["--model-uri", str(tiny_models["llama"]), "--dtype", "float32", "--method", method]
    assert hf_generate.main([*model, *lengths, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob(f"{label}-*.json")
    assert str(tmp_path) not in written.read_text()
    result = BenchmarkResult.load(written)
    assert result.server["model"] == tiny_models["llama"].name
    runs = result.runs
    assert [(run.concurrency, run.repeat, len(run.records)) for run in runs] == [
        (1, 1, 1),
        (3, 1, 3),
        (1, 2, 1),
        (3, 2, 3),
    ]
    for run in runs:
        assert {(each.input_tokens, each.output_tokens, len(each.chunks_s)) for each in run.records} == {(6, 4, 4)}
        assert run.metrics.output_tokens_per_s == pytest.approx(4 * run.concurrency / run.metrics.wall_s)
        assert run.metrics.failed == 0
    assert (result.label, result.settings["endpoint"]) == (label, "offline")
    assert result.server["ready_s"][0] > 0
    assert result.server["resident_mb"][0] > 50
    assert label in capsys.readouterr().out


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hf_generate.main(["--model-uri", str(tmp_path / "none"), "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
