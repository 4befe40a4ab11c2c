"""Quantiles from buckets, against what Prometheus' histogram_quantile says of the same buckets."""

from __future__ import annotations

import math

import pytest

from prebuilt_apps.cli.top.quantiles import quantile

INF = math.inf


@pytest.mark.parametrize(
    ("share", "buckets", "value"),
    [
        # Half of the ten lie in the first bucket, evenly from 0 on.
        (0.5, {1.0: 5, 2.0: 10, INF: 10}, 1.0),
        (0.25, {1.0: 5, 2.0: 10, INF: 10}, 0.5),
        (0.9, {1.0: 5, 2.0: 10, INF: 10}, 1.8),
        # An empty bucket below: from its bound on.
        (0.5, {1.0: 0, 2.0: 4, INF: 4}, 1.5),
        # Above the last finite bound nothing is known but that bound.
        (0.99, {1.0: 5, 2.0: 6, INF: 10}, 2.0),
        (1.0, {1.0: 5, 2.0: 10, INF: 10}, 2.0),
        # In any order; with a bucket that is behind the one below it.
        (0.5, {INF: 4, 3.0: 4, 2.0: 1, 1.0: 2}, 1.0),
        (0.75, {INF: 4, 3.0: 4, 2.0: 1, 1.0: 2}, 2.5),
    ],
)
def test_interpolates(share: float, buckets: dict[float, float], value: float) -> None:
    assert quantile(share, buckets) == pytest.approx(value)


@pytest.mark.parametrize("buckets", [{}, {INF: 3}, {1.0: 3, 2.0: 4}, {1.0: 0, INF: 0}])
def test_what_says_nothing(buckets: dict[float, float]) -> None:
    assert quantile(0.5, buckets) is None
