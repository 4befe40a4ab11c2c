"""Which products of a few rows are our own kernel's: settled once, by product_tuning.py, for a kind of matrix."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from vfastml.text_engine.triton_kernels.skinny_product import MOST_ROWS, Tiling

ROW_COUNTS = (1, 4, MOST_ROWS)
"""That are told apart; a product takes the next larger one."""


@dataclass(slots=True)
class SkinnyTilings:
    """All matrices of one kind, one in each layer, share one of these."""

    best: dict[int, Tiling | None] = field(default_factory=dict)
    """By the ROW_COUNTS; None, or nothing: the library's product is as fast."""

    def of(self, num_rows: int) -> Tiling | None:
        """For a product of so many rows. Without any, as where a step only begins prompts, no matrix is to be read."""
        if not 0 < num_rows <= MOST_ROWS or not self.best:
            return None
        return self.best.get(ROW_COUNTS[bisect_left(ROW_COUNTS, num_rows)])
