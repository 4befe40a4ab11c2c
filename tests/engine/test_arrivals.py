import asyncio

import pytest

from vfastml.engine.arrivals import Arrivals
from vfastml.engine.dispatch_replies import Delta, Finished
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.errors import ServerLostError


def new_task(request_id: str = "a") -> DispatchTask:
    return DispatchTask(TextGenerationReq(request_id=request_id, prompt="x"), lambda task: None)


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 4)


async def test_what_came_before_is_there():
    task = new_task()
    task.add_delta(Delta("a", 0, "x"))
    task.finish(Finished("a"))
    arrivals = Arrivals([task])
    assert await soon(arrivals.next()) == [(0, Delta("a", 0, "x"))]
    assert await soon(arrivals.next()) is None
    assert await soon(arrivals.next()) is None


async def test_all_that_came_together_is_one_arrival():
    tasks = [new_task("a"), new_task("b")]
    arrivals = Arrivals(tasks)
    assert await soon(arrivals.next()) == []
    waiting = asyncio.ensure_future(arrivals.next())
    await asyncio.sleep(0)
    tasks[1].add_delta(Delta("b", 0, "1"))
    tasks[0].add_delta(Delta("a", 0, "2"))
    tasks[1].add_delta(Delta("b", 0, "3"))
    assert await soon(waiting) == [(0, Delta("a", 0, "2")), (1, Delta("b", 0, "1")), (1, Delta("b", 0, "3"))]
    for task in tasks:
        assert not waiting.cancelled()
        task.finish(Finished(task.request_id))
    assert await soon(arrivals.next()) == []
    assert await soon(arrivals.next()) is None


async def test_it_is_not_over_before_all_have_ended():
    tasks = [new_task("a"), new_task("b")]
    arrivals = Arrivals(tasks)
    tasks[0].finish(Finished("a"))
    assert await soon(arrivals.next()) == []
    waiting = asyncio.ensure_future(arrivals.next())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    tasks[1].add_delta(Delta("b", 0, "x"))
    tasks[1].finish(Finished("b"))
    assert await soon(waiting) == [(1, Delta("b", 0, "x"))]
    assert await soon(arrivals.next()) is None


async def test_a_failure_comes_after_what_was_said_and_before_the_end_of_others():
    tasks = [new_task("a"), new_task("b")]
    arrivals = Arrivals(tasks)
    tasks[1].add_delta(Delta("b", 0, "x"))
    tasks[1].fail(ServerLostError("Gone."))
    assert await soon(arrivals.next()) == [(1, Delta("b", 0, "x"))]
    with pytest.raises(ServerLostError):
        await soon(arrivals.next())


async def test_a_failure_does_not_wait_for_the_others_to_be_silent():
    tasks = [new_task("a"), new_task("b")]
    arrivals = Arrivals(tasks)
    tasks[1].add_delta(Delta("b", 0, "x"))
    tasks[1].fail(ServerLostError("Gone."))
    tasks[0].add_delta(Delta("a", 0, "1"))
    assert await soon(arrivals.next()) == [(0, Delta("a", 0, "1")), (1, Delta("b", 0, "x"))]
    tasks[0].add_delta(Delta("a", 0, "2"))
    with pytest.raises(ServerLostError):
        await soon(arrivals.next())


async def test_it_can_be_woken_and_waits_again():
    arrivals = Arrivals([new_task()])
    await soon(arrivals.next())
    asyncio.get_running_loop().call_soon(arrivals.wake)
    assert await soon(arrivals.next()) == []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(arrivals.next(), 0.02)


async def test_after_a_cancelled_wait_nothing_is_lost():
    task = new_task()
    arrivals = Arrivals([task])
    await soon(arrivals.next())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(arrivals.next(), 0.01)
    task.add_delta(Delta("a", 0, "x"))
    assert await soon(arrivals.next()) == [(0, Delta("a", 0, "x"))]


async def test_a_reader_that_is_stuck_gets_fewer_and_longer_deltas():
    task = new_task()
    arrivals = Arrivals([task])
    for number in range(1000):
        task.add_delta(Delta("a", number % 2, f"{number} ", [number]))
    deltas = [delta for _, delta in await soon(arrivals.next())]
    assert len(deltas) <= 33
    for index in range(2):
        mine = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.text for delta in mine) == "".join(f"{number} " for number in range(index, 1000, 2))
        assert [token for delta in mine for token in delta.token_ids] == list(range(index, 1000, 2))


async def test_many_choices_are_merged_too():
    task = new_task()
    for number in range(10_000):
        task.add_delta(Delta("a", number % 100, "x"))
    deltas = task.take_deltas()
    assert len(deltas) <= 200
    assert sum(len(delta.text) for delta in deltas) == 10_000
