"""Drives a TextEngine in a test as a model server would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfastml.engine.dispatch_replies import Delta, Failed, Finished
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import LoadedEngine, load_engine
from vfastml.text_engine.sampling import settle_sampling

GREEDY = SamplingParams(temperature=0.0)


@dataclass
class Answer:
    """What one request's replies came to; keys are choice indexes."""

    texts: dict[int, str] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    scores: dict[int, list[float]] = field(default_factory=dict)
    reasons: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    num_deltas: int = 0
    num_counts: int = 0
    """Deltas that only say how many tokens there are."""
    end: Finished | Failed | None = None


class EngineDriver:
    """An engine and the answers that it gave."""

    def __init__(self, loaded: LoadedEngine) -> None:
        self.loaded = loaded
        self.engine = loaded.engine
        self.answers: dict[str, Answer] = {}

    @classmethod
    def load(cls, folder: Path, **config: Any) -> EngineDriver:
        """Its sizes are those asked for and the fixed defaults: no test depends on how fast the machine is."""
        asked = EngineConfig(**{"device": "cpu", "measure_limits": "never", **config})
        return cls(load_engine(folder, asked, lambda phase: None))

    def add(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams = GREEDY,
        *,
        matcher: TokenMatcher | None = None,
        **fields: Any,
    ) -> str:
        request_id = f"r{len(self.answers)}"
        request = TextGenerationReq(request_id=request_id, return_token_ids=True, sampling=sampling, **fields)
        room = self.loaded.limits.max_model_len - len(prompt)
        settled = settle_sampling(sampling, SamplingParams(), room=room)
        self.answers[request_id] = Answer()
        self.engine.add(EncodedRequest(request, list(prompt), settled, num_choices=request.n or 1, matcher=matcher))
        return request_id

    def step(self) -> list[Delta | Finished | Failed]:
        replies = self.engine.step()
        self.engine.check_integrity()
        for reply in replies:
            answer = self.answers[reply.request_id]
            assert answer.end is None, "a reply after the terminal one"
            if isinstance(reply, Delta):
                self._take_delta(answer, reply)
            else:
                answer.end = reply
        return replies

    def run(self) -> None:
        while self.engine.has_work:
            self.step()
        load = self.engine.load()
        assert (load.running, load.waiting, load.open_requests) == (0, 0, 0)
        assert load.free_blocks == load.total_blocks

    def tokens(self, request_id: str, index: int = 0) -> list[int]:
        return self.answers[request_id].tokens[index]

    def text(self, request_id: str, index: int = 0) -> str:
        return self.answers[request_id].texts[index]

    def _take_delta(self, answer: Answer, delta: Delta) -> None:
        assert delta.index not in answer.reasons, "a delta after the last one"
        answer.num_deltas += not delta.only_counts
        answer.num_counts += delta.only_counts
        answer.texts[delta.index] = answer.texts.get(delta.index, "") + delta.text
        answer.tokens.setdefault(delta.index, []).extend(delta.token_ids or [])
        if delta.scores is not None:
            answer.scores.setdefault(delta.index, []).extend(delta.scores)
        if delta.finish_reason is not None:
            answer.reasons[delta.index] = (delta.finish_reason, delta.stop_reason)
