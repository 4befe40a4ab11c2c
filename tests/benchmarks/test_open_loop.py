from __future__ import annotations

import asyncio
import random

import pytest

from benchmarks.open_loop import open_loop, poisson_arrivals


def test_arrivals_come_at_the_rate_and_irregularly() -> None:
    due_s = poisson_arrivals(50.0, 4000, random.Random(1))
    gaps = [later - earlier for earlier, later in zip([0.0, *due_s], due_s, strict=False)]
    assert min(gaps) >= 0
    assert due_s[-1] == pytest.approx(4000 / 50, rel=0.06)
    shorter = sum(gap < 1 / 50 for gap in gaps) / len(gaps)
    assert shorter == pytest.approx(0.632, abs=0.04)  # 1 - 1/e of an exponential lies below its mean


async def test_work_begins_when_it_is_due_whether_or_not_the_rest_has_ended() -> None:
    loop, began_s, release = asyncio.get_running_loop(), list[float](), asyncio.Event()
    start = loop.time()

    async def work(number: int) -> None:
        began_s.append(loop.time() - start)
        if number == 2:
            release.set()
        await asyncio.wait_for(release.wait(), 10)

    await open_loop([0.0, 0.02, 0.05], 3, work)
    assert all(began >= due - 0.001 for began, due in zip(began_s, [0.0, 0.02, 0.05], strict=True))


async def test_no_more_at_a_time_than_the_cap() -> None:
    at_work, most = 0, 0

    async def work(number: int) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.005)
        at_work -= 1

    await open_loop([0.0] * 9, 2, work)
    assert (at_work, most) == (0, 2)


async def test_a_failure_ends_the_loop() -> None:
    async def work(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(open_loop([0.0, 60.0], 1, work), 10)
