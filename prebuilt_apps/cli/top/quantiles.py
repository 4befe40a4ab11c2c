"""Quantiles of a histogram, as Prometheus' `histogram_quantile` finds them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which that share of what was counted lies.

    `buckets` has for each upper bound how many were at most that; one bound is infinite. Within a bucket values count
    as spread evenly, and the first one begins at 0. What lies above the last finite bound is told as that bound. None
    when nothing was counted, or when there is no infinite bucket or no other.
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or not buckets[math.inf] > 0:
        return None
    rank = share * buckets[math.inf]
    lower, below = 0.0, 0.0
    for bound in bounds[:-1]:
        # Buckets of one scrape are read one after another: a later one may have been a little behind.
        upto = max(below, buckets[bound])
        if upto >= rank and upto > below:
            return lower + (bound - lower) * (rank - below) / (upto - below)
        lower, below = bound, upto
    return bounds[-2]
