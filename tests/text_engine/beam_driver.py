"""Drives an engine that searches with beams."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from tests.text_engine.beam_oracle import Texts
from tests.text_engine.engine_driver import Answer, EngineDriver
from vfastml.engine.dispatch_replies import Delta, Failed, Finished

BLOCK_BYTES = 16 * 3 * 2 * 2 * 8 * 4
"""16 tokens of the tiny llama in float32: 3 layers, keys and values, 2 heads of 8."""


class BeamDriver(EngineDriver):
    """Notes each text's score too, and what was streamed before it ended."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.beam_scores: dict[tuple[str, int], float | None] = {}
        self.num_streamed: dict[str, int] = {}
        """Of each request, the tokens of its first choice that came before its end."""

    @classmethod
    def load(cls, folder: Path, **config: Any) -> Self:
        driver = super().load(folder, dtype="float32", **config)
        assert isinstance(driver, cls)
        return driver

    def step(self) -> list[Delta | Finished | Failed]:
        replies = super().step()
        assert len(self.engine._scheduler.running) <= self.loaded.limits.max_num_seqs
        return replies

    def texts(self, request_id: str) -> Texts:
        """Of all choices, in order."""
        indexes = sorted(self.answers[request_id].tokens)
        return [(self.tokens(request_id, index), self.beam_scores[request_id, index] or 0.0) for index in indexes]

    def _take_delta(self, answer: Answer, delta: Delta) -> None:
        super()._take_delta(answer, delta)
        if delta.finish_reason is not None:
            self.beam_scores[delta.request_id, delta.index] = delta.score
            return
        assert delta.score is None
        if delta.index == 0:
            self.num_streamed[delta.request_id] = len(answer.tokens[0])
