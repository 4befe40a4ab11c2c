from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import perplexity
from benchmarks.english_text import language_reference

TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why. " * 30


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "fox.txt"
    path.write_text(TEXT)
    return path


def expected(folder: Path, num_tokens: int, window: int) -> float:
    """By the model itself, a window at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False).input_ids
    ids = torch.tensor(tokens[:num_tokens])
    total, count = 0.0, 0
    for piece in ids.split(window):
        with torch.no_grad():
            logits = model(piece[None]).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, piece[1:], reduction="sum"))
        count += len(piece) - 1
    return math.exp(total / count)


def test_it_is_that_of_the_model_itself(
    tiny_models: dict[str, Path], text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models["llama"]
    lengths = ["--tokens", "700", "--window", "300"]  # windows of more than one chunk, and a shorter last one
    where = ["--model-uri", str(folder), "--text", str(text_file), "--output", str(tmp_path / "results")]
    assert perplexity.main([*lengths, *where, "--precisions", "float32,bfloat16"]) == 0
    (written,) = (tmp_path / "results").glob("perplexity-*.json")
    assert str(tmp_path) not in written.read_text()
    result = json.loads(written.read_text())
    exact, rounded = result["figures"]
    assert (exact["precision"], exact["tokens"]) == ("float32", 697)
    assert exact["perplexity"] == pytest.approx(expected(folder, 700, 300), rel=1e-4)
    assert rounded["perplexity"] == pytest.approx(exact["perplexity"], rel=0.05)
    assert rounded["perplexity"] != exact["perplexity"]
    assert (result["text"], len(result["sha256"])) == ("fox.txt", 64)
    assert "1.0000x" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--model-uri", "./none"], ["--text", "none.txt"]])
def test_what_is_not_there_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert perplexity.main(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_text_that_is_too_short_is_one_line(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "short.txt"
    text.write_text("")
    where = ["--model-uri", str(tiny_models["llama"]), "--text", str(text), "--precisions", "float32"]
    assert perplexity.main(where) == 1
    assert capsys.readouterr().err == "The text has fewer than two tokens: give a longer one with --text.\n"


@pytest.mark.parametrize("arguments", [["--precisions", "int3"], ["--window", "1"], ["--tokens", "1"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        perplexity.main(arguments)


def test_the_text_is_prose_and_enough_of_it() -> None:
    text = language_reference()
    paragraphs = text.text.split("\n\n")
    assert len(text.text.split()) > 20_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert all(len(paragraph.split()) >= 20 and paragraph.endswith(".") for paragraph in paragraphs)
    assert ">>>" not in text.text
    assert text == language_reference()
    assert len(text.sha256) == 64
