"""Beam search over HTTP, beside samples, gives the texts and the scores that transformers gives, in float32."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from transformers import AutoTokenizer

from tests.e2e.service import Service
from tests.oracle import load_oracle
from tests.text_engine.beam_oracle import Texts, beam_generate

MODEL = "smollm2-135m-instruct"
SENTENCES = [
    "The capital of France is",
    "Water boils at",
    "Once upon a time there was",
    "The best way to learn a language is",
    "In the year 1969",
    "def fibonacci(n):",
    "Roses are red,",
    "The mitochondria is",
    "To be or not to be,",
    "My favourite food is",
    "The sum of two and two is",
    "It was a dark and stormy night",
    "The president said that",
    "Dear Sir or Madam,",
    "Photosynthesis is the process by which",
    "The first law of thermodynamics",
    "She opened the door and",
    "import numpy as np",
    "Ingredients: flour, sugar,",
    "The train to Berlin",
]
NUM_TOKENS = 12


async def ask_all(service: Service, prompts: list[list[int]]) -> list[Completion]:
    """All searches at once, and as many samples beside them."""
    client = service.async_openai(max_retries=0, timeout=280)
    beams: dict[str, Any] = {"use_beam_search": True, "beam_width": 4, "return_token_ids": True}
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": NUM_TOKENS}
    searches = [client.completions.create(**asked, prompt=prompt, n=2, extra_body=beams) for prompt in prompts]
    samples = [client.completions.create(**asked, prompt=prompt, seed=1, n=2) for prompt in prompts]
    found: list[Completion] = await asyncio.gather(*searches, *samples)
    return found[: len(prompts)]


def texts_of(completion: Completion) -> Texts:
    return [(choice.token_ids, choice.score) for choice in completion.choices]  # type: ignore[attr-defined]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [6, pytest.param(len(SENTENCES), marks=pytest.mark.slow)])
def test_equal_generate(float32_service: Service, builtin_folder: Path, count: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(builtin_folder)
    prompts = [tokenizer(sentence).input_ids for sentence in SENTENCES[:count]]
    completions = asyncio.run(ask_all(float32_service, prompts))
    model = load_oracle(builtin_folder)
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = beam_generate(model, prompt, NUM_TOKENS, [2], num_beams=4, num_return_sequences=2)
        got = texts_of(completion)
        assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=1e-3)
        assert [tokens for tokens, _ in got] == [tokens for tokens, _ in expected]


def test_stream_of_a_search_joins_to_its_text(float32_service: Service) -> None:
    client = float32_service.openai()
    asked: dict[str, Any] = {"model": MODEL, "prompt": SENTENCES[0], "max_tokens": 24, "stop": [" France"]}
    search = {"use_beam_search": True, "beam_width": 3, "length_penalty": 0.5}
    whole = client.completions.create(**asked, extra_body=search).choices[0]
    chunks = [chunk.choices[0] for chunk in client.completions.create(**asked, extra_body=search, stream=True)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert len(chunks) > 1
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason
    assert chunks[-1].score == whole.score  # type: ignore[attr-defined]
