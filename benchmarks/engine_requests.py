"""Requests to an engine in this process, and the times of the answers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.engine_titles import DECODE_STEP, TOKENS_PER_S
from vfastml.engine.dispatch_replies import Delta, Failed, Finished
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.sampling import settle_sampling
from vfastml.text_engine.text_engine import TextEngine


def greedy_request(
    request_id: str,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    return_token_ids: bool = False,
    matcher: TokenMatcher | None = None,
) -> EncodedRequest:
    """Streams exactly that many tokens, if the matcher lets it."""
    asked = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    request = TextGenerationReq(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        stream=True,
        return_token_ids=return_token_ids,
        sampling=asked,
    )
    settled = settle_sampling(asked, SamplingParams(), room=max_tokens)
    return EncodedRequest(request, list(prompt), settled, matcher=matcher)


@dataclass
class Answers:
    """Of requests that were made at the same time. Seconds, from then on."""

    num_requests: int
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of all prompts."""
    first_tokens_s: dict[str, float] = field(default_factory=dict)
    """When each request had its first token."""
    wall_s: float = 0.0
    full_steps_s: list[float] = field(default_factory=list)
    """Lengths of the steps in which every request got one token, after its first."""

    @property
    def all_first_tokens_s(self) -> float:
        """When every prompt had been computed."""
        return max(self.first_tokens_s.values())

    def figures(self, num_prompt_tokens: int) -> dict[str, float]:
        """Speeds and times by title; the prompts had so many tokens together."""
        figures = {
            TOKENS_PER_S: self.output_tokens / self.wall_s,
            "prefill tokens/s": num_prompt_tokens / self.all_first_tokens_s,
            "TTFT, mean, ms": 1e3 * statistics.fmean(self.first_tokens_s.values()),
        }
        if self.full_steps_s:
            figures[DECODE_STEP] = 1e3 * statistics.median(self.full_steps_s)
        return figures

    def add(self, replies: Sequence[Delta | Finished | Failed], now_s: float) -> None:
        """What a step had to say. Raises RuntimeError if a request failed."""
        for reply in replies:
            if isinstance(reply, Delta):
                self.first_tokens_s.setdefault(reply.request_id, now_s)
                self.output_tokens += len(reply.token_ids or ())
            elif isinstance(reply, Finished):
                self.cached_tokens += reply.usage.cached_tokens
            else:
                raise RuntimeError(f"a request failed: {reply.message}")


def answer(
    engine: TextEngine,
    prompts: Sequence[Sequence[int]],
    output_tokens: int,
    new_matcher: Callable[[], TokenMatcher | None] = lambda: None,
    *,
    concurrency: int | None = None,
) -> Answers:
    """Answers to all these prompts, side by side; with a `concurrency`, so many at a time, and whoever has an answer
    makes room for the next. The engine must have no other work."""
    answers = Answers(len(prompts))
    waiting = iter(enumerate(prompts))
    began = time.perf_counter()

    def add(number: int) -> None:
        for name, prompt in itertools.islice(waiting, number):
            matcher = new_matcher()
            engine.add(greedy_request(f"{name}", prompt, output_tokens, return_token_ids=True, matcher=matcher))

    add(concurrency or len(prompts))
    ended = began
    while engine.has_work:
        all_decode = len(answers.first_tokens_s) == len(prompts)
        replies = engine.step()
        began_step, ended = ended, time.perf_counter()
        answers.add(replies, ended - began)
        if all_decode and sum(isinstance(reply, Delta) for reply in replies) == len(prompts):
            answers.full_steps_s.append(ended - began_step)
        add(sum(isinstance(reply, Finished) for reply in replies))
    answers.wall_s = ended - began
    return answers
