"""What those that watch requests are told, and when the caller gets the end."""

from __future__ import annotations

import asyncio

from vfastml.engine.dispatch_replies import Accepted, Delta, Failed, Finished, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.request_observer import ObservedRequest, SilentObserver
from vfastml.errors import QuotaLimitError, RequestCancelledError


class Notes(SilentObserver):
    def __init__(self, settled: asyncio.Future[None] | None = None) -> None:
        self.calls: list[str] = []
        self.settled = settled

    def on_dispatched(self, observed: ObservedRequest) -> None:
        self.calls.append("dispatched")

    def on_accepted(self, observed: ObservedRequest) -> None:
        self.calls.append(f"accepted {observed.num_prompt_tokens}")

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        self.calls.append(f"delta {observed.num_generated_tokens}")

    def on_ended(self, observed: ObservedRequest) -> asyncio.Future[None] | None:
        completion = observed.usage.completion_tokens if observed.usage else type(observed.error).__name__
        self.calls.append(f"ended {completion}")
        return self.settled


class Refuses(SilentObserver):
    def on_dispatched(self, observed: ObservedRequest) -> None:
        raise QuotaLimitError()


def task_with(*observers: SilentObserver) -> DispatchTask:
    return DispatchTask(TextGenerationReq(request_id="r1", prompt="one"), lambda _: None, observers)


async def test_they_hear_of_everything_once() -> None:
    notes = Notes()
    task = task_with(notes)
    task.add_accepted(Accepted("r1", 7))
    task.add_delta(Delta("r1", text="a", num_tokens=2))
    task.add_delta(Delta("r1", text="b", finish_reason="stop", num_tokens=1))
    task.finish(Finished("r1", Usage(7, 3)))
    assert task.ended()
    assert notes.calls == ["accepted 7", "delta 2", "delta 3", "ended 3"]


async def test_a_failure_is_an_end_too() -> None:
    notes = Notes()
    task = task_with(notes)
    task.finish(Failed.of("r1", RequestCancelledError()))
    assert notes.calls == ["ended RequestCancelledError"]


async def test_the_end_waits_for_all_that_note_it() -> None:
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    task = task_with(Notes(first), Notes(second))
    task.add_delta(Delta("r1", text="a", finish_reason="stop", num_tokens=1))
    task.finish(Finished("r1", Usage(7, 1)))
    assert (await anext(aiter(task))).text == "a"
    first.set_result(None)
    await asyncio.sleep(0.01)
    assert not task.ended()
    second.set_exception(OSError("no room"))
    result = await asyncio.wait_for(task.get_result(), 5)
    assert result.error is None


async def test_one_that_refuses_keeps_the_request_here(start_server, start_engine) -> None:
    server, notes = start_server(), Notes()
    engine = await start_engine(server)
    engine.observe(Refuses(), notes)
    result = await engine.dispatch(TextGenerationReq(request_id="r1", prompt="one two")).get_result()
    assert isinstance(result.error, QuotaLimitError)
    assert notes.calls == ["ended QuotaLimitError"]
    assert engine.open_requests == 0


async def test_what_a_real_exchange_tells(start_server, start_engine) -> None:
    server, notes = start_server(), Notes()
    engine = await start_engine(server)
    engine.observe(notes)
    result = await engine.dispatch(TextGenerationReq(request_id="r1", prompt="one two")).get_result()
    assert result.error is None
    assert notes.calls[0] == "dispatched"
    assert notes.calls[1].startswith("accepted")
    assert notes.calls[-1].startswith("ended")


class BreaksInCalls(SilentObserver):
    def on_accepted(self, observed: ObservedRequest) -> None:
        raise OSError("no room")

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        raise OSError("no room")

    def on_ended(self, observed: ObservedRequest) -> asyncio.Future[None] | None:
        raise OSError("no room")


async def test_one_that_raises_disturbs_nobody(start_server, start_engine) -> None:
    server, notes = start_server(), Notes()
    engine = await start_engine(server)
    engine.observe(BreaksInCalls(), notes)
    tasks = [engine.dispatch(TextGenerationReq(request_id=f"r{n}", prompt="one two")) for n in range(3)]
    results = [await asyncio.wait_for(task.get_result(), 10) for task in tasks]
    assert [result.error for result in results] == [None] * 3
    assert sum(call.startswith("ended") for call in notes.calls) == 3


class BreaksAtOnce(SilentObserver):
    def on_dispatched(self, observed: ObservedRequest) -> None:
        raise OSError("no room")


async def test_one_that_raises_before_it_is_sent_fails_this_request_alone(start_server, start_engine) -> None:
    server = start_server()
    engine = await start_engine(server)
    engine.observe(BreaksAtOnce())
    result = await engine.dispatch(TextGenerationReq(request_id="r1", prompt="one")).get_result()
    assert result.error is not None
    assert result.error.code == "internal_error"
    assert "room" not in result.error.message
    assert engine.open_requests == 0
