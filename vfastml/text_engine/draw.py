"""One token to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vfastml.text_engine.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """What choosing depends on, beside the logits."""

    row: int
    """Of the logits; several draws may share one."""
    sampling: Sampling
    choice: int
    """Which of a request's n choices."""
    num_generated: int
    """Tokens that the choice has so far."""
    tokens: Sequence[int] = ()
    """Those and the prompt's; read only where a penalty or a barred word asks for them."""

    @property
    def bars_at_first(self) -> bool:
        """The choice must not end yet."""
        return self.num_generated < self.sampling.min_tokens and self.sampling.bars_at_first

    @property
    def generated(self) -> Sequence[int]:
        """The tokens after the prompt."""
        return self.tokens[len(self.tokens) - self.num_generated :]
