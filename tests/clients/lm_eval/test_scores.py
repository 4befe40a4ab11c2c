"""lm-eval gives a model the same scores through our completions as through its own backend, question by question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.plain_answer import MODEL
from tests.e2e.service import Service

pytestmark = [pytest.mark.lm_eval, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
CHOOSING, WRITING = "general_knowledge", "short_answers"


@dataclass(frozen=True)
class Evaluation:
    """What lm-eval found: scores; for each question the log likelihood of each ending, and what the model wrote."""

    scores: dict[str, float]
    log_likelihoods: list[list[float]]
    texts: list[str]


def evaluate(folder: Path, backend: str, /, **model_args: Any) -> Evaluation:
    """One run of its command, as a user types it."""
    command = [str(Path(sys.executable).with_name("lm_eval")), "run", "--model", backend, "--device", "cpu"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in model_args.items())]
    command += ["--tasks", f"{CHOOSING},{WRITING}", "--include_path", str(Path(__file__).parent)]
    command += ["--output_path", str(folder), "--log_samples"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    [results] = folder.rglob("results_*.json")
    found = json.loads(results.read_text())["results"]
    return Evaluation(
        scores={name: found[CHOOSING][f"{name},none"] for name in ("acc", "acc_norm")},
        log_likelihoods=[[float(ending[0][0]) for ending in asked] for asked in answers(folder, CHOOSING)],
        texts=[asked[0][0] for asked in answers(folder, WRITING)],
    )


def answers(folder: Path, task: str) -> list[Any]:
    """What the model answered to each question."""
    [samples] = folder.rglob(f"samples_{task}_*.jsonl")
    questions = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    return [question["resps"] for question in questions]


@pytest.fixture(scope="module")
def expected(builtin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """By transformers."""
    return evaluate(tmp_path_factory.mktemp("hf"), "hf", pretrained=builtin_folder, dtype="float32")


@pytest.mark.parametrize("tokenized", [True, False], ids=["token ids", "texts"])
def test_the_same_scores(
    service: Service, builtin_folder: Path, expected: Evaluation, tmp_path: Path, tokenized: bool
) -> None:
    found = evaluate(
        tmp_path,
        "local-completions",
        model=MODEL,
        base_url=f"{service.url}/v1/completions",
        tokenizer=builtin_folder,
        tokenized_requests=tokenized,
        num_concurrent=8,
    )
    assert found.texts == expected.texts
    assert len(set(found.texts)) > 20
    assert found.scores == expected.scores
    assert 0.3 < found.scores["acc"] < 1
    assert len(found.log_likelihoods) == 40
    for ours, theirs in zip(found.log_likelihoods, expected.log_likelihoods, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
