"""Measures, when a model is loaded, which products of a few rows our own kernel computes faster than cuBLAS does. How
well either reads a matrix depends on the card, the matrix and the versions of both, so nothing is taken for granted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch

from vfastml.text_engine.decoders.projection import PlainProjection
from vfastml.text_engine.decoders.skinny_tilings import ROW_COUNTS, SkinnyTilings
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.triton_kernels.skinny_product import TILINGS, Tiling

logger = logging.getLogger(__name__)

Seconds = Callable[[Callable[[], None]], float]
"""How long a function's launches take on the device."""

_GAIN = 0.97
"""Of cuBLAS's time: what our kernel must stay below to be taken. Less is noise."""


class Product:
    """One kind of product of a decoder: the same in each layer, so that a round over all of them finds no matrix in a
    cache."""

    def __init__(self, name: str, matrices: Sequence[PlainProjection], sizes: tuple[int, int]) -> None:
        """`sizes` are those of a row that goes in, and of one that comes out."""
        self.name = name
        self.tilings = SkinnyTilings()
        self._matrices = matrices
        self._sizes = sizes
        for matrix in matrices:
            matrix.tilings = self.tilings

    def round(self, num_rows: int, like: torch.Tensor) -> Callable[[], None]:
        """Computes all of them once, as a decode step does; `like` has dtype and device."""
        x, residual = (torch.randn(num_rows, size).to(like) for size in self._sizes)

        def run() -> None:
            for matrix in self._matrices:
                if self.name == "gate_up":
                    matrix.silu_mul(x, eps=1e-6, bias=None)
                elif self.name in ("o", "down"):
                    matrix.add_to(residual, x)
                else:
                    matrix(x)

        return run


@torch.inference_mode()
def tune(products: Sequence[Product], like: torch.Tensor, seconds: Seconds) -> None:
    """Settles the tilings of all products; the log says which were taken, and what they gain."""
    for product in products:
        gains = dict(_gains(product, like, seconds))
        ours = ", ".join(f"{rows} rows {gain:.0%}" for rows, gain in gains.items())
        logger.info("%s products of a few rows: %s", product.name, ours or "cuBLAS's")


def _gains(product: Product, like: torch.Tensor, seconds: Seconds) -> Iterator[tuple[int, float]]:
    """By the numbers of rows that get a tiling: how much less time it takes."""
    for num_rows in ROW_COUNTS:
        run = product.round(num_rows, like)
        product.tilings.best[num_rows] = None
        by_library = seconds(run)
        times = dict(_times(product.tilings, num_rows, run, seconds))
        best = min(times, key=lambda tiling: times[tiling], default=None)
        is_better = best is not None and times[best] < _GAIN * by_library
        product.tilings.best[num_rows] = best if is_better else None
        if best is not None and is_better:
            yield num_rows, 1 - times[best] / by_library


def _times(
    tilings: SkinnyTilings, num_rows: int, run: Callable[[], None], seconds: Seconds
) -> Iterator[tuple[Tiling, float]]:
    for tiling in TILINGS:
        tilings.best[num_rows] = tiling
        try:
            yield tiling, seconds(run)
        except Exception as error:  # more registers or shared memory than the card has
            logger.debug("%s does not run here: %s", tiling, error)


def products_of(decoder: TritonDecoder) -> list[Product]:
    """Those whose matrices are plain: quantized ones are not tuned."""
    found = []
    for name, (matrices, sizes) in decoder.products().items():
        plain = [matrix for matrix in matrices if isinstance(matrix, PlainProjection)]
        if len(plain) == len(matrices):
            found.append(Product(name, plain, sizes))
    return found
