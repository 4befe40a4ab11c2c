"""Requests answered by a server in the test's own process: no socket, no signal, no second thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.models_servers.stub_server import Late, Silent, StepBreaks
from vfastml.engine.dispatch_replies import Detokenized, Tokenized
from vfastml.engine.dispatch_requests import (
    DetokenizeReq,
    ImageToImageReq,
    OneShotReq,
    SamplingParams,
    TextGenerationForward,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.errors import (
    InternalServerError,
    InvalidRequestError,
    ModelNotFoundError,
    UnsupportedError,
    VFastMLError,
)
from vfastml.models_servers import model_server
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.model_server import StartError
from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF
from vfastml.models_servers.one_shot_server import OneShotModelServer
from vfastml.models_servers.unsent_replies import WorkReply
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.engine_config import EngineConfig

GREEDY = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)


class Doubler(OneShotModelServer):
    loads = 0

    def load(self) -> None:
        self.loads += 1

    def forward(self, inputs: list[Any]) -> list[Any]:
        return [2 * number for number in inputs]


def doubler(**options: Any) -> Doubler:
    return Doubler("numbers", "numbers", max_wait_ms=1, **options)


def one_shot(request_id: str, inputs: Any, **fields: Any) -> OneShotReq:
    return OneShotReq(request_id=request_id, inputs=inputs, **fields)


@pytest.fixture(scope="module")
def text_server(tiny_models: dict[str, Path]) -> TextGenerationModelServerHF:
    return TextGenerationModelServerHF(
        model_uri=str(tiny_models["llama"]),
        model_device="cpu",
        model_load_kwargs={"torch_dtype": "float32"},
        model_forward_kwargs=TextGenerationForward(num_generations=2),
        engine_config=EngineConfig(max_model_len=64, max_num_seqs=4, kv_cache_memory=500_000, measure_limits="never"),
    )


def text(request_id: str, **fields: Any) -> TextGenerationReq:
    return TextGenerationReq(request_id=request_id, sampling=GREEDY, **fields)


def test_one_shot_requests_in_order_of_submission() -> None:
    server = doubler(max_batch_size=4)
    for number in range(10):
        server.submit(one_shot(str(number), number))
    results = server.run_until_idle()
    assert [(result.request_id, result.result) for result in results] == [(str(n), 2 * n) for n in range(10)]
    assert {result.model for result in results} == {"numbers"}
    assert server.run_until_idle() == []
    server.submit(one_shot("again", "ab"))
    assert [result.result for result in server.run_until_idle()] == ["abab"]
    assert server.loads == 1


def test_output_is_what_would_come_out_of_the_wire() -> None:
    server = doubler()
    for request_id, inputs in (("tuple", (1, 2)), ("object", _Odd())):
        server.submit(one_shot(request_id, inputs))
    whole, odd = server.run_until_idle()
    assert whole.result == [1, 2, 1, 2]
    assert isinstance(odd.error, InternalServerError)


class _Odd:
    def __rmul__(self, other: int) -> _Odd:
        return self


def test_forward_kwargs_are_kept_as_given() -> None:
    given = {"scale": 2}
    server = doubler(model_forward_kwargs=given)
    assert server.model_forward_kwargs == given
    assert server.model_forward_kwargs is not given
    assert doubler().model_forward_kwargs == {}
    forward = TextGenerationForward(num_generations=2)
    assert doubler(model_forward_kwargs=forward).model_forward_kwargs is forward


def test_images_go_to_forward() -> None:
    class Counter(Doubler):
        def forward(self, inputs: list[Any]) -> list[Any]:
            return [len(one["images"]) for one in inputs]

    server = Counter("images", "counter", max_wait_ms=1)
    server.submit(ImageToImageReq(request_id="a", images=[b"1", b"2"]))
    assert server.run_until_idle()[0].result == 2


def test_text_server_answers_each_kind(text_server: TextGenerationModelServerHF) -> None:
    requests: list[WorkReq] = [
        text("whole", prompt="abc", stream=False),
        TokenizeReq(request_id="tokenize", prompt="abc"),
        text("streamed", prompt="abc", n=1),
        DetokenizeReq(request_id="detokenize", tokens=[64, 65]),
        text("bad", prompt=""),
        text("chat", messages=[{"role": "user", "content": "hi"}], model_uri="llama"),
        one_shot("other", 1),
        text("elsewhere", prompt="abc", model_uri="gpt"),
        text("whole", prompt="twice the same id"),
    ]
    for request in requests:
        text_server.submit(request)
    results = text_server.run_until_idle()
    assert [result.request for result in results] == requests
    whole, tokenize, streamed, detokenize, bad, chat, other, elsewhere, twice = results
    assert whole.result.text == streamed.result.text
    assert [len(one.result.choices) for one in (whole, streamed, chat)] == [2, 1, 2]
    assert isinstance(tokenize.result, Tokenized)
    assert detokenize.result == Detokenized("detokenize", "ab")
    errors = [type(result.error) for result in (bad, other, elsewhere, twice)]
    assert errors == [InvalidRequestError, UnsupportedError, ModelNotFoundError, InvalidRequestError]
    load = text_server.current_load()
    assert (load.open_requests, load.free_blocks) == (0, load.total_blocks)


def test_nothing_is_opened_and_no_signal_is_taken(text_server: TextGenerationModelServerHF) -> None:
    before = len(os.listdir("/proc/self/fd"))
    threads, handler = threading.active_count(), signal.getsignal(signal.SIGTERM)
    servers = [doubler(rpc_port=port) for port in range(6500, 6510)]
    for server in servers:
        server.submit(one_shot("a", 1))
        assert server.run_until_idle()[0].result == 2
    assert len(os.listdir("/proc/self/fd")) == before
    assert (threading.active_count(), signal.getsignal(signal.SIGTERM)) == (threads, handler)


def test_deadline_is_refused_by_name(text_server: TextGenerationModelServerHF) -> None:
    text_server.submit(text("hasty", prompt="abc", deadline_s=1.0))
    [result] = text_server.run_until_idle()
    assert isinstance(result.error, UnsupportedError)
    assert result.error.param == "deadline_s"


@pytest.mark.parametrize("place", ["_take", "_release_block"], ids=["step", "end and cancel"])
def test_ctrl_c_waits_until_the_books_are_in_order(
    text_server: TextGenerationModelServerHF, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for request_id in "abcdef":
        text_server.submit(text(request_id, prompt="abc"))
    usual, handler = getattr(BlockManager, place), signal.getsignal(signal.SIGINT)

    def interrupted(blocks: BlockManager, *arguments: Any) -> Any:
        result = usual(blocks, *arguments)
        signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(BlockManager, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            text_server.run_until_idle()
    text_server._engine.check_integrity()
    load = text_server.current_load()
    assert (load.open_requests, load.free_blocks) == (0, load.total_blocks)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_while_work_is_accepted_cancels_it() -> None:
    class Interrupted(Silent):
        def accept(self, work: Work) -> None:
            signal.raise_signal(signal.SIGINT)
            super().accept(work)

    server = Interrupted("text_generation", "interrupted")
    server.submit(TextGenerationReq(request_id="a", prompt="x"))
    with pytest.raises(KeyboardInterrupt):
        server.run_until_idle()
    assert server.asked == []


class Slow(Late):
    """Its requests are due half a second after they came, one by one."""

    def due_in_s(self) -> float | None:
        return super().due_in_s() if self.asked else None

    def step(self) -> list[WorkReply]:
        assert time.monotonic() >= self.due_at_s
        return super().step()


def test_server_that_takes_its_time() -> None:
    server = Slow("text_generation", "slow")
    server.submit(TextGenerationReq(request_id="a", prompt="x"))
    assert server.run_until_idle()[0].result.text == "late"


def test_request_that_is_never_answered_fails() -> None:
    server = Silent("text_generation", "silent")
    server.submit(TextGenerationReq(request_id="a", prompt="x"))
    assert isinstance(server.run_until_idle()[0].error, InternalServerError)
    assert server.asked == []


def test_model_that_breaks_is_raised_and_nothing_stays_open() -> None:
    server = StepBreaks("text_generation", "breaks")
    for request_id in "ab":
        server.submit(TextGenerationReq(request_id=request_id, prompt="x"))
    with pytest.raises(RuntimeError, match="out of cheese"):
        server.run_until_idle()
    assert server.asked == []
    assert server.run_until_idle() == []


@pytest.mark.parametrize("error", [StartError("No model."), UnsupportedError("No.")])
def test_failed_load_is_raised_and_may_be_tried_again(error: StartError | VFastMLError) -> None:
    class Flaky(Doubler):
        def load(self) -> None:
            super().load()
            if self.loads == 1:
                raise error

    server = Flaky("numbers", "flaky", max_wait_ms=1)
    server.submit(one_shot("a", 1))
    with pytest.raises(type(error)):
        server.run_until_idle()
    assert server.run_until_idle()[0].result == 2


class _Stops(Doubler):
    """Stops as soon as it serves."""

    closed = 0

    def close(self) -> None:
        self.closed += 1

    def due_in_s(self) -> float | None:
        self._stop_at_s = 0.0
        return super().due_in_s()


def test_loaded_server_is_not_loaded_again_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Stops, "_own_signals", lambda self: None)
    monkeypatch.setattr(model_server, "configure_logging", lambda *_: None)
    monkeypatch.setattr(model_server.sys, "setswitchinterval", lambda seconds: None)
    server = _Stops("numbers", "numbers", max_wait_ms=1, rpc_port=0)
    server.submit(one_shot("a", 1))
    assert server.run_until_idle()[0].result == 2
    server._stop_at_s = None
    server.run_forever()
    assert (server.loads, server.closed) == (1, 1)
    server.submit(one_shot("a", 1))
    assert server.run_until_idle()[0].result == 2
    assert server.loads == 2  # it had let go of the model
