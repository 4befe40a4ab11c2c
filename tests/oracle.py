"""What transformers itself would have generated: the truth that the engine is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

TIE = 1e-4
"""Two logits closer than this may swap by rounding."""


def load_oracle(folder: Path) -> PreTrainedModel:
    """The model in float32, with transformers' own attention."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


@torch.inference_mode()
def generate(
    model: PreTrainedModel, prompt: Sequence[int], num_tokens: int, *, ignore_eos: bool, **altering: Any
) -> list[int]:
    """`model.generate`, greedy, one prompt alone. End tokens count only if not ignored; the end token is included.
    `altering` may be a `repetition_penalty` and a `sequence_bias`, as a GenerationConfig has them."""
    own = model.generation_config
    model.generation_config = GenerationConfig(  # generate() fills what a passed config leaves out from this one
        do_sample=False,
        eos_token_id=None if ignore_eos else own.eos_token_id,
        pad_token_id=own.pad_token_id,
        **altering,
    )
    try:
        ids = torch.tensor([list(prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens)
        return output[0, len(prompt) :].tolist()
    finally:
        model.generation_config = own


class Oracle:
    """A model, and what it has generated: each text once, however many tests ask for it."""

    def __init__(self, folder: Path) -> None:
        self.model = load_oracle(folder)
        self._texts: dict[str, list[int]] = {}

    def generate(self, prompt: Sequence[int], num_tokens: int, *, ignore_eos: bool, **altering: Any) -> list[int]:
        """As `generate` above."""
        asked = repr((list(prompt), num_tokens, ignore_eos, altering))
        if asked not in self._texts:
            self._texts[asked] = generate(self.model, prompt, num_tokens, ignore_eos=ignore_eos, **altering)
        return self._texts[asked]


@torch.inference_mode()
def forced_logits(
    model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int], **altering: Any
) -> torch.Tensor:
    """Logits [len(output), vocab_size] that each token of `output` was to be chosen from, by one forward pass."""
    ids = torch.tensor([[*prompt, *output[:-1]]])
    keep = torch.arange(len(prompt) - 1, ids.shape[1])
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0].float()
    processors = logits_processors(**altering)
    return torch.cat([processors(ids[:, : keep[row] + 1], logits[row : row + 1]) for row in range(len(logits))])


def logits_processors(
    repetition_penalty: float | None = None, sequence_bias: dict[tuple[int, ...], float] | None = None
) -> LogitsProcessorList:
    """transformers' own, in the order in which `generate` applies them."""
    processors = LogitsProcessorList()
    if sequence_bias is not None:
        processors.append(SequenceBiasLogitsProcessor(sequence_bias))
    if repetition_penalty is not None:
        processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
    return processors


def assert_greedy(model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int], **altering: Any) -> None:
    """Each token is the best one after those before it; a tie within rounding is printed and allowed."""
    logits = forced_logits(model, prompt, output, **altering)
    chosen = logits.gather(1, torch.tensor(output)[:, None])[:, 0]
    gaps = logits.max(dim=-1).values - chosen
    for place in gaps.nonzero()[:, 0].tolist():
        print(f"token {place} of {len(output)}: its logit is {gaps[place]:.2e} below the best")
    assert float(gaps.max()) <= TIE


def assert_same_tokens(
    model: PreTrainedModel, prompt: Sequence[int], got: list[int], expected: list[int], **altering: Any
) -> None:
    """Equal, or different only from a tie within rounding on; what follows a tie is checked by `assert_greedy`."""
    if got != expected:
        place = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
        best = forced_logits(model, prompt, got[: place + 1], **altering)[-1].topk(2).values
        print(f"token {place}: {got[place]} instead of {expected[place]}, logits {best.tolist()}")
        assert float(best[0] - best[1]) <= TIE
        assert_greedy(model, prompt, got, **altering)
