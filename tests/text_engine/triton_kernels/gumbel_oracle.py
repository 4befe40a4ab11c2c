"""The noise of gumbel.py in numpy: Philox4x32-10 as Salmon et al. (2011) publish it, in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MASK = np.uint64(2**32 - 1)


def philox(seed: int, counters: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Four numbers of 32 bits for each counter: [N, 4]."""
    zero, key = np.zeros_like(counters, dtype=np.uint64), [seed & (2**32 - 1), seed >> 32 & (2**32 - 1)]
    c = [counters.astype(np.uint64), zero, zero, zero]
    for _ in range(10):
        left, right = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high_left, high_right = left >> np.uint64(32), right >> np.uint64(32)
        c = [
            high_right ^ c[1] ^ np.uint64(key[0]),
            right & MASK,
            high_left ^ c[3] ^ np.uint64(key[1]),
            left & MASK,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return np.stack(c, axis=1)


def gumbel(seed: int, num_tokens: int) -> npt.NDArray[np.float64]:
    """Noise of the tokens 0, 1, ..., [num_tokens]."""
    bits = philox(seed, np.arange(-(-num_tokens // 4), dtype=np.int64)).reshape(-1)[:num_tokens]
    return np.asarray(-np.log(-np.log1p(-(bits + 0.5) / 2.0**32)))
