import asyncio

from tests.engine.fake_server import FakeServer, silent, until
from vfastml.engine.dispatch_replies import Goaway
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.server_table import ServerState
from vfastml.engine.tenant import TENANT, Tenant


def text(request_id="r1", **fields) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, prompt="one two", **fields)


async def free_endpoint() -> tuple[int, str]:
    server = FakeServer()
    await server.stop()
    return server.port, server.endpoint


async def test_held_until_a_loading_server_says_hello_and_sent_in_order(start_server, start_engine):
    server = start_server(loading=True)
    engine = await start_engine(server)
    await until(lambda: engine.startup().phase == "loading weights")
    startup = engine.startup()
    assert (startup.done, startup.progress, startup.elapsed_s >= 3.0) == (False, 0.5, True)
    tasks = [engine.dispatch(text(f"r{i}")) for i in range(20)]
    assert engine.held_requests == 20
    assert not engine.is_ready()
    server.become_ready()
    answers = await asyncio.gather(*(task.get_result() for task in tasks))
    assert all(answer.succeeded() for answer in answers)
    assert [request.request_id for request in server.requests] == [f"r{i}" for i in range(20)]
    assert engine.startup().done


async def test_join_is_repeated_while_loading(start_server, start_engine):
    server = start_server(loading=True)
    engine = await start_engine(server)
    await until(lambda: len(server.joins) >= 2)
    server.loading = False
    await until(engine.is_ready)
    said = len(server.joins)
    await asyncio.sleep(1.2)
    assert len(server.joins) == said


async def test_server_started_after_the_gateway(start_server, start_engine):
    port, endpoint = await free_endpoint()
    engine = await start_engine(endpoint)
    task = engine.dispatch(text())
    assert engine.startup().phase == "waiting for a model server"
    assert engine.servers()[0].state is ServerState.UNSEEN
    start_server(port=port)
    assert (await asyncio.wait_for(task.get_result(), 4)).succeeded()


async def test_held_no_longer_than_hold_s(start_engine):
    engine = await start_engine((await free_endpoint())[1], hold_s=0.1)
    answer = await asyncio.wait_for(engine.dispatch(text()).get_result(), 1)
    assert (answer.error.status, answer.error.retry_after_s, answer.model) == (503, 5.0, None)


async def test_no_more_than_max_held(start_engine):
    engine = await start_engine((await free_endpoint())[1], max_held=2)
    held = [engine.dispatch(text(f"r{i}")) for i in range(2)]
    refused = await asyncio.wait_for(engine.dispatch(text("r2")).get_result(), 1)
    assert (refused.error.status, refused.error.retry_after_s) == (503, 5.0)
    held[0].cancel()
    assert engine.held_requests == 1
    another = engine.dispatch(text("r3"))
    assert engine.held_requests == 2
    for task in (held[1], another):
        task.cancel()


async def test_tenant_that_floods_what_is_held_leaves_room_for_others(start_engine):
    engine = await start_engine((await free_endpoint())[1], max_held=8)

    def dispatch_as(name: str, request_id: str) -> DispatchTask:
        before = TENANT.set(Tenant(name, name.encode()))
        try:
            return engine.dispatch(text(request_id))
        finally:
            TENANT.reset(before)

    tasks = [dispatch_as("busy", f"busy {number}") for number in range(20)]
    assert engine.held_requests == 6
    refused = [await asyncio.wait_for(task.get_result(), 1) for task in tasks[6:]]
    assert {(one.error.status, one.error.code, one.error.retry_after_s) for one in refused} == {
        (429, "queue_full", 5.0)
    }
    tasks += [dispatch_as("quiet", "quiet 1"), engine.dispatch(text("nobody's"))]
    assert engine.held_requests == 8
    for task in tasks:
        task.cancel()


async def test_held_request_that_is_cancelled_is_never_sent(start_server, start_engine):
    server = start_server(loading=True)
    engine = await start_engine(server)
    await until(lambda: server.joins)
    gone, kept = engine.dispatch(text("gone")), engine.dispatch(text("kept"))
    gone.cancel()
    server.become_ready()
    assert (await kept.get_result()).succeeded()
    assert (await gone.get_result()).error.kind == "RequestCancelledError"
    assert [request.request_id for request in server.requests] == ["kept"]


async def test_deadline_of_a_held_request(start_engine):
    engine = await start_engine((await free_endpoint())[1])
    answer = await asyncio.wait_for(engine.dispatch(text(deadline_s=0.05)).get_result(), 1)
    assert answer.error.status == 504


async def test_hold_ends_when_the_request_is_sent(start_server, start_engine):
    server = start_server(loading=True, answer=silent)
    engine = await start_engine(server, hold_s=0.2)
    await until(lambda: server.joins)
    task = engine.dispatch(text())
    server.become_ready()
    await until(lambda: server.requests)
    await asyncio.sleep(0.3)
    server.accept("r1")
    server.finish("r1")
    assert (await task.get_result()).succeeded()


async def test_held_for_an_unknown_model_until_the_last_server_has_loaded(start_server, start_engine):
    up, loading = start_server(models=("a",)), start_server(models=("b",), loading=True)
    engine = await start_engine(up, loading)
    await until(lambda: engine.models() and engine.startup().done and loading.joins)
    await until(lambda: engine.servers()[1].phase == "loading weights")
    found, unknown = engine.dispatch(text("r1", model_uri="b")), engine.dispatch(text("r2", model_uri="c"))
    assert engine.held_requests == 2
    loading.become_ready()
    assert (await found.get_result()).model == "b"
    assert (await unknown.get_result()).error.status == 404


async def test_unknown_model_does_not_wait_for_a_server_never_seen(start_server, start_engine):
    engine = await start_engine(start_server(), (await free_endpoint())[1])
    await until(engine.is_ready)
    answer = await asyncio.wait_for(engine.dispatch(text(model_uri="x")).get_result(), 1)
    assert answer.error.status == 404


async def test_held_requests_fail_at_once_when_their_server_leaves(start_server, start_engine):
    for leave in ("goaway", "stop"):
        server = start_server(loading=True)
        engine = await start_engine(server)
        await until(lambda server=server: server.joins)
        task = engine.dispatch(text())
        if leave == "goaway":
            server.broadcast(Goaway())
        else:
            await server.stop()
        answer = await asyncio.wait_for(task.get_result(), 1)
        assert (answer.error.status, answer.error.retry_after_s) == (503, 1.0)
