import asyncio
import contextlib
import gc
import time
import weakref

import pytest

from tests.engine.fake_server import echo, first_word, silent, until
from vfastml.engine.deadline import DEADLINE
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import (
    Detokenized,
    Failed,
    Finished,
    Goaway,
    Load,
    Output,
    Status,
    StepReply,
    Tokenized,
    Usage,
)
from vfastml.engine.dispatch_requests import (
    CancelReq,
    DetokenizeReq,
    ImageToImageReq,
    OneShotReq,
    TextGenerationReq,
    TokenizeReq,
)
from vfastml.engine.server_table import ServerState
from vfastml.engine.wire import PROTOCOL, encode_reply, sealed
from vfastml.errors import VFastMLError


def text(request_id="r1", prompt="one two three", **fields) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt=prompt, **fields)


async def ready(engine: DispatchEngine) -> DispatchEngine:
    await until(engine.is_ready)
    return engine


async def error_of(task) -> VFastMLError:
    result = await asyncio.wait_for(task.get_result(), 4)
    assert not result.succeeded()
    return result.error


async def test_streamed_answer(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    task = engine.dispatch(text())
    assert (await task.accepted()).prompt_tokens == 3
    assert task.model == "m"
    assert [delta.text async for delta in task] == ["one ", "two ", "three ", ""]
    assert task.usage == Usage(prompt_tokens=1, completion_tokens=3)
    assert task.timings is not None


async def test_whole_answer_of_several_choices(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    answer = await engine.dispatch(text(n=2)).get_result()
    assert answer.succeeded()
    assert answer.model == "m"
    assert [(c.index, c.text, c.token_ids, c.finish_reason) for c in answer.result.choices] == [
        (0, "one two three ", [4, 4, 6], "stop"),
        (1, "one two three ", [4, 4, 6], "stop"),
    ]
    assert answer.result.prompt_token_ids == [7, 7, 7]


async def test_answers_of_the_other_kinds(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    tokenized = engine.dispatch(TokenizeReq(request_id="t", prompt="ab"))
    detokenized = engine.dispatch(DetokenizeReq(request_id="d", tokens=[97, 98]))
    output = engine.dispatch(OneShotReq(request_id="o", inputs={"image": b"\0\1", "size": 2}))
    assert (await tokenized.get_result()).result == Tokenized("t", [97, 98], 512)
    assert (await detokenized.get_result()).result == Detokenized("d", "ab")
    assert (await output.get_result()).result == {"image": b"\0\1", "size": 2}


async def test_many_at_once_are_not_mixed_up(start_server, start_engine):
    engine = await ready(await start_engine(start_server(), start_server()))
    tasks = [engine.dispatch(text(f"r{i}", f"nonce {i} " * 5)) for i in range(500)]
    answers = await asyncio.wait_for(asyncio.gather(*(task.get_result() for task in tasks)), 20)
    assert [a.result.choices[0].text for a in answers] == [f"nonce {i} " * 5 for i in range(500)]


async def test_cancel_reaches_the_server_once(start_server, start_engine):
    server = start_server(answer=first_word)
    engine = await ready(await start_engine(server))
    task = engine.dispatch(text())
    await task.accepted()
    task.cancel()
    task.cancel()
    assert (await error_of(task)).kind == "RequestCancelledError"
    await until(lambda: server.cancelled)
    server.finish("r1")
    await asyncio.sleep(0.05)
    assert server.cancelled == ["r1"]
    assert not (await task.get_result()).succeeded()


async def closed(task) -> None:
    stream = aiter(task)
    await anext(stream)
    await stream.aclose()


async def closed_before_the_first_read(task) -> None:
    await aiter(task).aclose()


async def dropped(task) -> None:
    async for _ in task:
        break


async def dropped_before_the_first_read(task) -> None:
    aiter(task)


async def iteration_cancelled(task) -> None:
    stream = aiter(task)
    await anext(stream)
    await cancel_waiting(asyncio.ensure_future(anext(stream)))


async def result_cancelled(task) -> None:
    await cancel_waiting(asyncio.create_task(task.get_result()))


async def cancel_waiting(waiting: asyncio.Future) -> None:
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    "go_away",
    [
        closed,
        closed_before_the_first_read,
        dropped,
        dropped_before_the_first_read,
        iteration_cancelled,
        result_cancelled,
    ],
)
async def test_who_stops_listening_cancels(start_server, start_engine, go_away):
    server = start_server(answer=first_word)
    engine = await ready(await start_engine(server))
    task = engine.dispatch(text())
    await task.accepted()
    await go_away(task)
    await until(lambda: server.cancelled == ["r1"])
    assert (await error_of(task)).kind == "RequestCancelledError"


async def test_waiting_for_accepted_may_stop_without_a_cancel(start_server, start_engine):
    server = start_server(answer=silent)
    engine = await ready(await start_engine(server))
    task = engine.dispatch(text())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task.accepted(), 0.05)
    echo(server, server.requests[0])
    assert (await task.get_result()).succeeded()
    assert server.cancelled == []


@pytest.mark.parametrize(
    ("kind", "expected", "status"),
    [
        ("InvalidRequestError", "InvalidRequestError", 400),
        ("RateLimitError", "RateLimitError", 429),
        ("InternalServerTooBusyError", "InternalServerTooBusyError", 503),
        ("OfANewerPeer", "InternalServerError", 500),
    ],
)
async def test_refusal_becomes_the_error_it_names(start_server, start_engine, kind, expected, status):
    def refuse(server, request):
        server.reply(Failed(request.request_id, kind, "No.", "prompt", "a_code", 2.0))

    engine = await ready(await start_engine(start_server(answer=refuse)))
    task = engine.dispatch(text())
    error = await error_of(task)
    assert (error.kind, error.status, error.message) == (expected, status, "No.")
    assert (error.param, error.code, error.retry_after_s) == ("prompt", "a_code", 2.0)
    with pytest.raises(VFastMLError, match="No"):
        await task.accepted()
    with pytest.raises(VFastMLError, match="No"):
        await anext(aiter(task))


async def test_failure_within_a_stream_comes_after_its_deltas(start_server, start_engine):
    def break_off(server, request):
        first_word(server, request)
        server.reply(
            StepReply([], [Failed(request.request_id, "InternalServerError", "Broken.")]), to=request.request_id
        )

    engine = await ready(await start_engine(start_server(answer=break_off)))
    stream = aiter(engine.dispatch(text()))
    assert (await anext(stream)).text == "one "
    with pytest.raises(VFastMLError, match="Broken"):
        await anext(stream)


@pytest.mark.parametrize("kind", ["InternalServerTooBusyError", "RateLimitError"])
async def test_turned_away_by_one_server_goes_to_another(start_server, start_engine, kind):
    def refuse(server, request):
        server.reply(Failed(request.request_id, kind, "Draining, or full."))

    full, other = start_server(answer=refuse), start_server()
    engine = await ready(await start_engine(full, other))
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))
    answers = [await engine.dispatch(text(f"r{i}")).get_result() for i in range(4)]
    assert all(answer.succeeded() for answer in answers)
    assert len(full.requests) > 0
    assert len(other.requests) == 4


async def test_turned_away_by_all_is_what_the_last_one_said(start_server, start_engine):
    def refuse(server, request):
        server.reply(Failed(request.request_id, "RateLimitError", "Full.", code="queue_full", retry_after_s=3.0))

    servers = [start_server(answer=refuse) for _ in range(3)]
    engine = await ready(await start_engine(*servers))
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))
    error = await error_of(engine.dispatch(text()))
    assert (error.status, error.code, error.retry_after_s, error.retryable) == (429, "queue_full", 3.0, True)
    assert sum(len(server.requests) for server in servers) == 2


async def test_turned_away_or_lost_moves_only_once(start_server, start_engine):
    def refuse(server, request):
        server.reply(Failed(request.request_id, "RateLimitError", "Full."))

    full, other = start_server(answer=refuse), start_server(answer=silent)
    engine = await ready(await start_engine(full, other))
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))
    tasks = [engine.dispatch(text(f"r{i}")) for i in range(2)]
    await until(lambda: len(other.requests) == 2)
    await other.stop()
    # One was turned away and then lost, one was lost and then turned away.
    assert {(await error_of(task)).kind for task in tasks} == {"ServerLostError", "RateLimitError"}


async def test_only_the_first_terminal_counts(start_server, start_engine):
    def twice(server, request):
        server.finish(request.request_id, completion_tokens=1)
        server.finish(request.request_id, completion_tokens=2)
        server.reply(Failed(request.request_id, "InternalServerError", "Broken."))

    engine = await ready(await start_engine(start_server(answer=twice)))
    task = engine.dispatch(text())
    await task.get_result()
    assert (await engine.dispatch(text("r2")).get_result()).succeeded()
    assert (await task.get_result()).succeeded()
    assert task.usage.completion_tokens == 1


async def test_answer_of_the_wrong_kind_fails_the_request(start_server, start_engine):
    def confuse(server, request):
        server.reply(Output(request.request_id, 1))

    engine = await ready(await start_engine(start_server(answer=confuse)))
    assert (await error_of(engine.dispatch(text()))).kind == "InternalServerError"


async def test_end_without_accepted(start_server, start_engine):
    engine = await ready(await start_engine(start_server(answer=lambda server, request: server.finish("r1"))))
    with pytest.raises(VFastMLError):
        await engine.dispatch(text()).accepted()


async def test_garbage_and_replies_to_nobody_are_survived(start_server, start_engine):
    server = start_server()
    engine = await ready(await start_engine(server))
    server.broadcast(StepReply([], [Finished("nobody")]))
    server.broadcast(Output("nobody", 1))
    for frame in (
        sealed(b""),
        sealed(b"\xc1"),
        sealed(b"\x91" * 5000),
        sealed(b"\x92\xa6Future\x01"),
        sealed(b"\x92\xa6Goaway\xa1\x80"),
    ):
        server.broadcast_frame(frame)
    assert (await engine.dispatch(text()).get_result()).succeeded()


@pytest.mark.parametrize(
    "frame", [b"", encode_reply(Finished("r1"))[:-1], b"x" + encode_reply(Finished("r1"))], ids=repr
)
async def test_a_damaged_frame_begins_a_new_session(start_server, start_engine, frame):
    server = start_server(answer=silent)
    engine = await ready(await start_engine(server))
    begun, unheard = engine.dispatch(text("begun")), engine.dispatch(text("unheard"))
    await until(lambda: len(server.requests) == 2)
    server.accept(begun.request_id)
    server.say(begun.request_id, "a")
    assert (await begun.next_delta()).text == "a"
    server.broadcast_frame(frame)
    server.say(begun.request_id, "c")
    assert {(await error_of(task)).kind for task in (begun, unheard)} == {"ServerLostError"}
    assert [delta.text for delta in begun.take_deltas()] == []
    await ready(engine)
    again = engine.dispatch(text("again"))
    await until(lambda: len(server.requests) == 3)
    server.finish("again")
    assert (await again.get_result()).succeeded()


async def test_id_that_is_open_is_refused_and_the_first_one_lives(start_server, start_engine):
    server = start_server(answer=silent)
    engine = await ready(await start_engine(server))
    first, second = engine.dispatch(text()), engine.dispatch(text())
    assert (await error_of(second)).kind == "InvalidRequestError"
    second.cancel()
    await until(lambda: server.requests)
    echo(server, server.requests[0])
    assert (await first.get_result()).succeeded()
    assert len(server.requests) == 1


async def test_what_cannot_be_encoded_is_the_tasks_error(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    assert (await error_of(engine.dispatch(text(prompt="\ud800")))).kind == "InvalidRequestError"


async def test_deadline_cancels_and_fails(start_server, start_engine):
    server = start_server(answer=first_word)
    engine = await ready(await start_engine(server))
    task = engine.dispatch(text(deadline_s=0.1))
    assert (await error_of(task)).status == 504
    await until(lambda: server.cancelled == ["r1"])


@pytest.fixture
def callers_deadline():
    """Sets seconds from now at which whatever is dispatched has failed."""
    before = DEADLINE.get()
    yield lambda seconds: DEADLINE.set(time.monotonic() + seconds)
    DEADLINE.set(before)


@pytest.mark.parametrize(
    "request_",
    [
        text(),
        text(deadline_s=60.0),
        TokenizeReq(request_id="r1", prompt="x"),
        DetokenizeReq(request_id="r1", tokens=[1]),
        OneShotReq(request_id="r1", inputs=1),
        ImageToImageReq(request_id="r1", images=[]),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_deadline_of_the_caller_is_for_every_kind(start_server, start_engine, callers_deadline, request_):
    server = start_server(answer=silent)
    engine = await ready(await start_engine(server))
    callers_deadline(0.1)
    error = await error_of(engine.dispatch(request_))
    assert (error.status, error.code) == (504, "deadline_exceeded")
    await until(lambda: server.cancelled == ["r1"])


async def test_deadline_of_the_caller_does_not_lengthen_a_requests_own(start_server, start_engine, callers_deadline):
    engine = await ready(await start_engine(start_server(answer=silent)))
    callers_deadline(60.0)
    assert (await error_of(engine.dispatch(text(deadline_s=0.05)))).status == 504


async def test_too_late_is_not_even_sent(start_server, start_engine, callers_deadline):
    server = start_server()
    engine = await ready(await start_engine(server))
    callers_deadline(-1.0)
    task = engine.dispatch(text())
    assert task.ended()
    assert (await error_of(task)).status == 504
    assert server.requests == []


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
async def test_deadline_that_is_none(start_server, start_engine, deadline_s):
    engine = await ready(await start_engine(start_server()))
    assert (await error_of(engine.dispatch(text(deadline_s=deadline_s)))).param == "deadline_s"


async def test_deadline_in_time_leaves_nothing_behind(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    task = engine.dispatch(text(deadline_s=60.0))
    assert (await task.get_result()).succeeded()
    gone = weakref.ref(task)
    del task
    gc.collect()
    assert gone() is None


async def test_result_that_nobody_waits_for_is_not_kept(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    gone = weakref.ref(engine.dispatch(text()))
    await until(lambda: engine.open_requests == 0)
    gc.collect()
    assert gone() is None


async def test_requests_are_spread_over_the_servers(start_server, start_engine):
    servers = [start_server(answer=silent) for _ in range(3)]
    engine = await ready(await start_engine(*servers))
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))
    tasks = [engine.dispatch(text(f"r{i}")) for i in range(12)]
    await until(lambda: [len(server.requests) for server in servers] == [4, 4, 4])
    assert [view.open_requests for view in engine.servers()] == [4, 4, 4]
    for task in tasks:
        task.cancel()


async def test_models_are_chosen_by_name(start_server, start_engine):
    first, second = start_server(models=("a",)), start_server(models=("b", "c"))
    engine = await start_engine(first, second)
    await until(lambda: len(engine.models()) == 3)
    assert (await engine.dispatch(text("r1", model_uri="b")).get_result()).model == "b"
    assert (await engine.dispatch(text("r2", model_uri="org/a")).get_result()).model == "a"
    unknown = await error_of(engine.dispatch(text("r3", model_uri="x" * 500)))
    assert (unknown.status, unknown.code, unknown.param) == (404, "model_not_found", "model")
    assert len(unknown.message) < 200
    assert (await error_of(engine.dispatch(text("r4")))).param == "model"


async def test_draining_server_finishes_and_gets_nothing_new(start_server, start_engine):
    server = start_server(answer=first_word)
    engine = await ready(await start_engine(server))
    task = engine.dispatch(text())
    await task.accepted()
    server.broadcast(Goaway("stopping"))
    await until(lambda: engine.servers()[0].state is ServerState.DRAINING)
    refused = await error_of(engine.dispatch(text("r2")))
    assert (refused.status, refused.retry_after_s) == (503, 1.0)
    assert not engine.is_ready()
    server.finish("r1")
    assert (await task.get_result()).result.choices[0].text == "one "
    assert [request.request_id for request in server.requests] == ["r1"]


async def test_other_protocol_is_not_used(start_server, start_engine, caplog):
    engine = await start_engine(start_server(protocol=PROTOCOL + 1))
    await until(lambda: engine.servers()[0].state is ServerState.INCOMPATIBLE)
    assert (await error_of(engine.dispatch(text()))).status == 503
    assert not engine.startup().done
    assert [r.getMessage() for r in caplog.records if f"protocol {PROTOCOL + 1}" in r.getMessage()]


async def test_beats_are_shown(start_server, start_engine):
    server = start_server()
    engine = await ready(await start_engine(server))
    server.broadcast(Status("ready", None, 12.0, 0.5, Load(running=3, waiting=4)))
    await until(lambda: engine.servers()[0].load == Load(running=3, waiting=4))
    view = engine.servers()[0]
    assert (view.endpoint, view.phase, view.elapsed_s, view.device) == (server.endpoint, "ready", 12.0, "cpu")
    assert 0.5 <= view.step_age_s < 2.0
    assert [model.id for model in view.models] == ["m"]


async def test_close_fails_what_is_open_as_retryable(start_server, start_engine):
    engine = await ready(await start_engine(start_server(answer=first_word)))
    task = engine.dispatch(text())
    await task.accepted()
    held = engine.dispatch(text("r2"))
    await engine.close()
    for error in (await error_of(task), await error_of(held)):
        assert (error.status, error.retryable) == (503, True)
    with pytest.raises(RuntimeError):
        engine.dispatch(text("r3"))


async def test_runs_again_after_a_close(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    await engine.close()
    assert not engine.is_ready()
    await engine.start()
    await ready(engine)
    assert (await engine.dispatch(text()).get_result()).succeeded()
    with pytest.raises(RuntimeError):
        await engine.start()


async def test_not_running_and_not_work():
    with pytest.raises(RuntimeError):
        DispatchEngine(["tcp://127.0.0.1:1"]).dispatch(text())
    await DispatchEngine(["tcp://127.0.0.1:1"]).close()


async def test_only_work_is_dispatched(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    with pytest.raises(TypeError):
        engine.dispatch(CancelReq(request_id="r1"))


async def test_surprise_in_a_handler_does_not_stop_the_reading(start_server, start_engine, monkeypatch, caplog):
    server = start_server()
    engine = await ready(await start_engine(server))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_on_goaway", lambda endpoint: 1 / 0)
        server.broadcast(Goaway())
        await until(lambda: "ZeroDivisionError" in caplog.text)
    assert (await engine.dispatch(text()).get_result()).succeeded()


async def test_client_that_breaks_off_in_its_own_code(start_server, start_engine):
    server = start_server(answer=first_word)
    engine = await ready(await start_engine(server))
    with contextlib.suppress(ZeroDivisionError):
        async with contextlib.aclosing(aiter(engine.dispatch(text()))) as stream:
            async for _ in stream:
                raise ZeroDivisionError
    await until(lambda: server.cancelled == ["r1"])


async def test_another_thread_may_not_dispatch(start_server, start_engine):
    engine = await ready(await start_engine(start_server()))
    with pytest.raises(RuntimeError, match="async def"):
        await asyncio.to_thread(engine.dispatch, text())
    assert engine.open_requests == 0
