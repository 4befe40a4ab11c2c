"""A request as the engine takes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vfastml.engine.dispatch_replies import Accepted
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.output_parsers.output_parser import OutputParser
from vfastml.text_engine.sampling import Sampling


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A checked request with its prompt as tokens: what the engine takes."""

    request: TextGenerationReq
    prompt_tokens: list[int]
    sampling: Sampling
    echo_text: str = ""
    """What each choice's text starts with."""
    num_choices: int = 1
    """How many are generated: the request's n, or the server's default, or best_of."""
    num_answers: int | None = None
    """How many of them, the most probable ones, are answered. None: all."""
    matcher: TokenMatcher | None = None
    """Of the request's constraint, at its beginning."""
    new_output_parser: Callable[[], OutputParser] | None = None
    """Makes what finds tool calls and reasoning in a choice's text."""
    keeps_special_tokens: bool = False
    """The parser needs to see them."""
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.request.request_id

    @property
    def shows_special_tokens(self) -> bool:
        """They are part of the text, or of what a parser finds in it."""
        return self.keeps_special_tokens or not self.sampling.skip_special_tokens

    @property
    def num_texts(self) -> int:
        """Choices or beams."""
        beams = self.request.beams
        return self.num_choices if beams is None else beams.width

    @property
    def num_tokens(self) -> int:
        """That it may come to: its prompt's, and the most that each of its choices or beams may get."""
        return len(self.prompt_tokens) + self.num_texts * self.sampling.max_tokens

    def accepted(self) -> Accepted:
        """The first reply."""
        ids = self.prompt_tokens if self.request.return_token_ids else None
        return Accepted(self.request_id, len(self.prompt_tokens), ids, self.num_answers or self.num_choices)
