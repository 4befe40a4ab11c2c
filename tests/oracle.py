"""What transformers itself would have generated: the truth that the engine is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

TIE = 1e-4
"""Two logits closer than this may swap by rounding."""


def load_oracle(folder: Path) -> PreTrainedModel:
    """The model in float32, with transformers' own attention."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


@torch.inference_mode()
def generate(model: PreTrainedModel, prompt: Sequence[int], num_tokens: int, *, ignore_eos: bool) -> list[int]:
    """`model.generate`, greedy, one prompt alone. End tokens count only if not ignored; the end token is included."""
    own = model.generation_config
    model.generation_config = GenerationConfig(  # generate() fills what a passed config leaves out from this one
        do_sample=False,
        eos_token_id=None if ignore_eos else own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    try:
        ids = torch.tensor([list(prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens)
        return output[0, len(prompt) :].tolist()
    finally:
        model.generation_config = own


@torch.inference_mode()
def forced_logits(model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """Logits [len(output), vocab_size] that each token of `output` was to be chosen from, by one forward pass."""
    ids = torch.tensor([[*prompt, *output[:-1]]])
    keep = torch.arange(len(prompt) - 1, ids.shape[1])
    return model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0].float()


def assert_greedy(model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int]) -> None:
    """Each token is the best one after those before it; a tie within rounding is printed and allowed."""
    logits = forced_logits(model, prompt, output)
    chosen = logits.gather(1, torch.tensor(output)[:, None])[:, 0]
    gaps = logits.max(dim=-1).values - chosen
    for place in gaps.nonzero()[:, 0].tolist():
        print(f"token {place} of {len(output)}: its logit is {gaps[place]:.2e} below the best")
    assert float(gaps.max()) <= TIE


def assert_same_tokens(model: PreTrainedModel, prompt: Sequence[int], got: list[int], expected: list[int]) -> None:
    """Equal, or different only from a tie within rounding on; what follows a tie is checked by `assert_greedy`."""
    if got != expected:
        place = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
        best = forced_logits(model, prompt, got[: place + 1])[-1].topk(2).values
        print(f"token {place}: {got[place]} instead of {expected[place]}, logits {best.tolist()}")
        assert float(best[0] - best[1]) <= TIE
        assert_greedy(model, prompt, got)
