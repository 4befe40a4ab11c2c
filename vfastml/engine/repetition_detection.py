"""When a text goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class RepetitionDetection(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A choice that ends with the same `min_pattern_size` to `max_pattern_size` tokens, `min_count` times over, ends
    there; its stop reason is `repetition`."""

    max_pattern_size: int
    min_pattern_size: int = 1
    min_count: int = 2

    @property
    def is_sound(self) -> bool:
        """Whether the numbers make sense, and few enough tokens are looked at in each step."""
        sizes_fit = 1 <= self.min_pattern_size <= self.max_pattern_size <= _MAX_PATTERN_SIZE
        return sizes_fit and 2 <= self.min_count <= _MAX_COUNT

    def is_met(self, tokens: Sequence[int], num_generated: int) -> bool:
        """Whether the last `num_generated` of these tokens end so."""
        for size in range(self.min_pattern_size, self.max_pattern_size + 1):
            length = size * self.min_count
            if length > num_generated:
                return False
            # A text of period `size` equals itself, moved by that.
            if tokens[-1] == tokens[-1 - size] and tokens[-length:-size] == tokens[-length + size :]:
                return True
        return False


_MAX_PATTERN_SIZE = 256
_MAX_COUNT = 64
