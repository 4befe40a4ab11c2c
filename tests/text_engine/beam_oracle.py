"""What transformers answers to a beam search, and what a diverse one should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from vfastml.engine.dispatch_requests import BeamSearch

Texts = list[tuple[list[int], float]]
"""Tokens after the prompt, the end token included, and the text's score; the best first."""


@torch.inference_mode()
def beam_generate(
    model: PreTrainedModel, prompt: Sequence[int], num_tokens: int, ends: list[int], **asked: Any
) -> Texts:
    """`model.generate` with `asked` in its GenerationConfig."""
    own = model.generation_config
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends or None, pad_token_id=258, **asked)
    try:
        ids = torch.tensor([list(prompt)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            return_dict_in_generate=True,
            output_scores=True,
        )
    finally:
        model.generation_config = own
    texts = output.sequences[:, len(prompt) :].tolist()
    lengths = (output.beam_indices >= 0).sum(dim=1).tolist()
    return [
        (text[:length], score)
        for text, length, score in zip(texts, lengths, output.sequences_scores.tolist(), strict=True)
    ]


Ends = Callable[[list[int]], bool]
"""Whether a text ends with its newest token."""


@torch.inference_mode()
def search_plainly(
    model: PreTrainedModel, prompt: Sequence[int], num_tokens: int, num_kept: int, ends: Ends, search: BeamSearch
) -> Texts:
    """The same search once more, and in groups: every beam a forward pass over all of its tokens, every token a
    candidate. Groups choose one after the other; each token that an earlier one has chosen in this place costs
    `diversity_penalty` for each beam that has it (Vijayakumar et al. 2018, Hamming diversity)."""
    width = search.width // search.groups
    running: list[Texts] = [[([], 0.0)] for _ in range(search.groups)]
    finished: list[Texts] = [[] for _ in range(search.groups)]
    for length in range(1, num_tokens + 1):
        chosen = torch.zeros(model.config.vocab_size)
        for group, beams in enumerate(running):
            ids = [[*prompt, *tokens] for tokens, _ in beams]
            if not ids:
                continue
            scores = model(torch.tensor(ids)).logits[:, -1].log_softmax(-1) - search.diversity_penalty * chosen
            total = (scores + torch.tensor([[score] for _, score in beams])).flatten().topk(num_kept)
            running[group] = []
            for rank, (score, place) in enumerate(zip(total.values.tolist(), total.indices.tolist(), strict=True)):
                parent, token = divmod(place, len(chosen))
                tokens = [*beams[parent][0], token]
                if ends(tokens) or length == num_tokens:
                    if rank < width:
                        finished[group].append((tokens, score / length**search.length_penalty))
                elif len(running[group]) < width:
                    running[group].append((tokens, score))
            finished[group] = sorted(finished[group], key=lambda text: -text[1])[:width]
            if running[group] and len(finished[group]) == width:
                hope = running[group][0][1] / length**search.length_penalty
                if search.early_stopping is True or hope <= finished[group][-1][1]:
                    running[group] = []
            for tokens, _ in running[group]:
                chosen[tokens[-1]] += 1
    return sorted((text for texts in finished for text in texts), key=lambda text: -text[1])
