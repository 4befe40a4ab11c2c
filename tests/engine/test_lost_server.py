import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.fake_server import FakeServer, first_word, silent, until
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Delta, Status, StepReply
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.server_table import ServerState

ROOT = Path(__file__).parents[2]


def text(request_id="r1", **fields) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt="one two", **fields)


async def all_live(engine: DispatchEngine) -> None:
    await until(lambda: all(view.state is ServerState.LIVE for view in engine.servers()))


async def test_after_a_delta_the_request_fails(start_server, start_engine):
    server = start_server(answer=first_word)
    engine = await start_engine(server)
    await all_live(engine)
    task = engine.dispatch(text())
    stream = aiter(task)
    assert (await anext(stream)).text == "one "
    await server.stop()
    answer = await asyncio.wait_for(task.get_result(), 1)
    assert (answer.error.kind, answer.error.retryable, answer.error.retry_after_s) == ("ServerLostError", True, 1.0)
    assert engine.servers()[0].state is ServerState.LOST
    assert [model.id for model in engine.models()] == ["m"]
    refused = await asyncio.wait_for(engine.dispatch(text("r2", model_uri="m")).get_result(), 1)
    assert (refused.error.status, refused.error.retry_after_s) == (503, 1.0)
    assert (await asyncio.wait_for(engine.dispatch(text("r3", model_uri="x")).get_result(), 1)).error.status == 404


async def test_after_a_delta_it_does_not_move(start_server, start_engine):
    servers = [start_server(answer=first_word) for _ in range(2)]
    engine = await start_engine(*servers)
    await all_live(engine)
    task = engine.dispatch(text())
    stream = aiter(task)
    await anext(stream)
    await next(server for server in servers if server.requests).stop()
    assert (await asyncio.wait_for(task.get_result(), 1)).error.kind == "ServerLostError"


async def test_before_the_first_delta_it_moves_once(start_server, start_engine):
    servers = [start_server(answer=silent) for _ in range(3)]
    engine = await start_engine(*servers)
    await all_live(engine)
    task = engine.dispatch(text())
    first = await one_that_has(servers, "r1")
    first.accept("r1")
    await task.accepted()
    await first.stop()
    second = await one_that_has([server for server in servers if server is not first], "r1")
    await second.stop()
    assert (await asyncio.wait_for(task.get_result(), 1)).error.kind == "ServerLostError"
    assert sum(len(server.requests) for server in servers) == 2


async def one_that_has(servers: list[FakeServer], request_id: str) -> FakeServer:
    def found():
        return [server for server in servers if request_id in [request.request_id for request in server.requests]]

    await until(found, timeout_s=1)
    return found()[0]


async def test_moved_request_is_answered_by_the_other_server(start_server, start_engine):
    lost, other = start_server(answer=silent), start_server()
    engine = await start_engine(lost, other)
    await all_live(engine)
    tasks = [engine.dispatch(text(f"r{i}")) for i in range(8)]
    await until(lambda: len(lost.requests) == 4)
    await lost.stop()
    answers = await asyncio.wait_for(asyncio.gather(*(task.get_result() for task in tasks)), 2)
    assert [answer.result.choices[0].text for answer in answers] == ["one two "] * 8


async def test_moves_only_to_the_same_model(start_server, start_engine):
    lost, other = start_server(models=("a",), answer=silent), start_server(models=("b",))
    engine = await start_engine(lost, other)
    await all_live(engine)
    task = engine.dispatch(text(model_uri="a"))
    await until(lambda: lost.requests)
    await lost.stop()
    assert (await asyncio.wait_for(task.get_result(), 1)).error.kind == "ServerLostError"
    assert other.requests == []
    assert not engine.is_ready()


async def test_restart_on_the_same_port(start_server, start_engine):
    server = start_server()
    engine = await start_engine(server)
    for _ in range(3):
        await all_live(engine)
        assert (await engine.dispatch(text()).get_result()).succeeded()
        await server.stop()
        await until(lambda: engine.servers()[0].state is ServerState.LOST)
        server = start_server(port=server.port, models=("n",))
    await all_live(engine)
    assert [model.id for model in engine.models()] == ["n"]


async def test_hello_of_another_process_on_the_same_connection(start_server, start_engine):
    server = start_server(answer=silent)
    engine = await start_engine(server)
    await all_live(engine)
    task = engine.dispatch(text())
    await until(lambda: server.requests)
    server.server_id = "another"
    server.become_ready()
    assert (await asyncio.wait_for(task.get_result(), 1)).error.kind == "ServerLostError"
    await all_live(engine)


async def test_hung_server_is_given_up_until_it_moves_again(start_server, start_engine):
    server, other = start_server(answer=silent), start_server()
    engine = await start_engine(server, other, max_step_age_s=5.0)
    await all_live(engine)
    moved = engine.dispatch(text("r1"))
    await until(lambda: server.requests)
    server.broadcast(Status("ready", step_age_s=6.0))
    assert (await asyncio.wait_for(moved.get_result(), 2)).succeeded()
    await until(lambda: server.cancelled == ["r1"])
    assert engine.servers()[0].state is ServerState.HUNG
    server.finish("r1")  # too late: another server has answered
    server.broadcast(Status("ready", step_age_s=0.1))
    await all_live(engine)


async def test_late_answer_of_the_server_that_was_given_up(start_server, start_engine):
    hung, other = start_server(answer=silent), start_server(answer=silent)
    engine = await start_engine(hung, other, max_step_age_s=5.0)
    await all_live(engine)
    task = engine.dispatch(text())
    await until(lambda: hung.requests)
    hung.broadcast(Status("ready", step_age_s=6.0))
    await until(lambda: other.requests)
    hung.say("r1", "wrong")
    hung.finish("r1")
    await asyncio.sleep(0.05)
    other.say("r1", "right")
    other.finish("r1")
    assert (await task.get_result()).result.choices[0].text == "right"


async def test_loading_server_may_be_silent_for_long(start_server, start_engine):
    server = start_server(loading=True)
    engine = await start_engine(server, max_step_age_s=0.1)
    await until(lambda: engine.servers()[0].phase == "loading weights")
    task = engine.dispatch(text())
    await asyncio.sleep(1.3)
    server.become_ready()
    assert (await asyncio.wait_for(task.get_result(), 1)).succeeded()


@pytest.fixture
def process():
    """A fake server in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("fake_server.py")), "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)})
    child.endpoint = f"tcp://127.0.0.1:{child.stdout.readline().strip()}"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_killed_or_frozen_process_is_noticed(start_engine, process, how):
    engine = await start_engine(process.endpoint)
    await all_live(engine)
    streams = [aiter(engine.dispatch(text(f"r{i}"))) for i in range(32)]
    for stream in streams:
        await anext(stream)
    process.send_signal(how)
    started = time.monotonic()
    ends = await asyncio.wait_for(asyncio.gather(*(anext(s) for s in streams), return_exceptions=True), 5)
    assert [end.kind for end in ends] == ["ServerLostError"] * 32
    assert time.monotonic() - started < 1.5
    if how is signal.SIGSTOP:
        process.send_signal(signal.SIGCONT)
        await all_live(engine)
        assert (await anext(aiter(engine.dispatch(text("again"))))).text == "one "


async def test_a_request_that_is_only_counted_moves(start_server, start_engine):
    def count(server, request):
        server.accept(request.request_id, 2)
        server.reply(StepReply([Delta(request.request_id, num_tokens=32)]), to=request.request_id)

    lost, other = start_server(answer=count), start_server()
    engine = await start_engine(lost, other)
    await all_live(engine)
    tasks = [engine.dispatch(text(f"r{i}", stream=False)) for i in range(2)]
    await until(lambda: max(task.num_generated_tokens for task in tasks) == 32)
    await lost.stop()
    results = [(await asyncio.wait_for(task.get_result(), 2)).result for task in tasks]
    assert [(len(result.choices), result.choices[0].text) for result in results] == [(1, "one two ")] * 2
