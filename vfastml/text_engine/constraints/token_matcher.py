"""Where a text is in what its constraint allows."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

TokenMask = npt.NDArray[np.int32]
"""[ceil(vocab_size / 32)]: token t may come next where bit t % 32 of word t // 32 is set."""


class TokenMatcher(Protocol):
    """Of one text, from its first token on."""

    @property
    def is_over(self) -> bool:
        """Nothing may follow but an end token."""

    def accept(self, token: int) -> None:
        """The text goes on with this token, which the constraint allows and which is no end token."""

    def fork(self) -> Self:
        """The same place for another text, which goes its own way from here on."""

    def fill(self, mask: TokenMask) -> None:
        """Sets the bits of all tokens that may come next, end tokens included where the text may end here, and clears
        the others. Called on another thread, but never at the same time as another method of this object."""
