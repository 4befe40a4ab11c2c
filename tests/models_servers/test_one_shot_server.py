"""Batches of a one-shot server: when they run, what each input gets, and the whole of it in the example."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.e2e.service import free_port
from vfastml.engine.dispatch_replies import Accepted, Failed, Load, Output
from vfastml.engine.dispatch_requests import DetokenizeReq, ImageToImageReq, OneShotReq, TextGenerationReq, TokenizeReq
from vfastml.errors import InvalidRequestError, RateLimitError, UnsupportedError
from vfastml.models_servers.one_shot_server import OneShotModelServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "colour_names.py"


def doubled(inputs: list[Any]) -> list[Any]:
    return [2 * number for number in inputs]


class Recorder(OneShotModelServer):
    """Calls the function it is given, and keeps what it was called with."""

    def __init__(self, function: Callable[[list[Any]], Any] = doubled, **options: Any) -> None:
        super().__init__("numbers", "numbers", **options)
        self.function = function
        self.batches: list[list[Any]] = []

    def load(self) -> None:
        """Nothing."""

    def forward(self, inputs: list[Any]) -> list[Any]:
        self.batches.append(inputs)
        return self.function(inputs)  # type: ignore[no-any-return]


def queued(server: OneShotModelServer, *inputs: Any) -> None:
    """Each input under its place as id."""
    for place, value in enumerate(inputs):
        server.accept(server.prepare(OneShotReq(request_id=str(place), inputs=value)))


def test_callers_with_keys_have_equal_parts_of_a_batch() -> None:
    server = Recorder(max_batch_size=4)
    for place, share in enumerate("aaaaaaaabb"):
        server.accept(server.prepare(OneShotReq(request_id=str(place), inputs=place, share=share)))
    server.step()
    assert sorted(server.batches[0]) == [0, 1, 8, 9]


class NoFaceError(RateLimitError):
    """An author's own."""


def outcome(server: OneShotModelServer, steps: int = 1) -> dict[str, Any]:
    """Of so many steps, each due at once: the value, or the error's kind and message."""
    found: dict[str, Any] = {}
    for reply in [reply for _ in range(steps) for reply in due_step(server)]:
        if isinstance(reply, Output):
            found[reply.request_id] = msgspec.msgpack.decode(reply.output)
        else:
            assert isinstance(reply, Failed)
            found[reply.request_id] = (reply.kind, reply.message)
    return found


def due_step(server: OneShotModelServer) -> list[Any]:
    assert server.due_in_s() == 0
    return list(server.step())


def test_full_batch_runs_at_once() -> None:
    server = Recorder(max_batch_size=3, max_wait_ms=1e9)
    assert server.due_in_s() is None
    queued(server, 1, 2)
    assert (server.due_in_s() or 0) > 1e5
    queued(server, 1, 2, 3, 4)
    assert server.due_in_s() == 0
    assert outcome(server) == {"0": 2, "1": 4, "2": 6}
    assert server.batches == [[1, 2, 3]]
    assert server.current_load() == Load(waiting=1)


def test_small_batch_runs_when_its_first_input_has_waited() -> None:
    server = Recorder(max_batch_size=3, max_wait_ms=0)
    queued(server, 1)
    assert server.due_in_s() == 0
    assert outcome(server) == {"0": 2}
    assert server.due_in_s() is None


def test_outputs_stay_in_order() -> None:
    server = Recorder(max_batch_size=50)
    queued(server, *range(50))
    assert [reply.request_id for reply in server.step()] == [str(place) for place in range(50)]


@pytest.mark.parametrize("answer", [[], [1, 2, 3], None, 7])
def test_other_number_of_outputs_fails(answer: Any) -> None:
    server = Recorder(lambda inputs: answer, max_wait_ms=0)
    queued(server, 1, 2)
    got = outcome(server, steps=3)
    assert {kind for kind, _ in got.values()} == {"InternalServerError"}
    assert set(got) == {"0", "1"}


@pytest.mark.rule("S12")
def test_one_poisonous_input_fails_alone() -> None:
    def halve(inputs: list[Any]) -> list[Any]:
        return [10 / value for value in inputs]

    server = Recorder(halve, max_batch_size=3, max_wait_ms=1e9)
    queued(server, 5, 0, 2, 1)
    failed = ("InternalServerError", "The model could not process this input.")
    assert outcome(server, steps=4) == {"0": 2, "1": failed, "2": 5}
    assert server.batches == [[5, 0, 2], [5], [0], [2]]
    assert (server.due_in_s() or 0) > 1e5
    assert server.current_load() == Load(waiting=1)


def test_each_step_is_one_forward_and_a_cancelled_input_is_not_tried_again() -> None:
    def fail(inputs: list[Any]) -> list[Any]:
        raise ArithmeticError

    server = Recorder(fail, max_batch_size=3, max_wait_ms=1e9)
    queued(server, 1, 2, 3)
    assert due_step(server) == []
    assert (server.batches, server.current_load()) == ([[1, 2, 3]], Load(waiting=3))
    server.cancel("1")
    assert [reply.request_id for reply in due_step(server)] == ["0"]
    assert [reply.request_id for reply in due_step(server)] == ["2"]
    assert server.due_in_s() is None


def test_batch_that_finds_too_little_memory_is_done_one_by_one() -> None:
    def roomy(inputs: list[Any]) -> list[Any]:
        if sum(inputs) > 9:
            raise MemoryError
        return doubled(inputs)

    server = Recorder(roomy, max_batch_size=3, max_wait_ms=0)
    queued(server, 5, 20, 7)
    too_large = ("InternalServerTooBusyError", "There is too little memory for this request now.")
    assert outcome(server, steps=4) == {"0": 10, "1": too_large, "2": 14}
    queued(server, *[1] * 100)
    assert outcome(server, steps=34) == {str(number): 2 for number in range(100)}


def test_our_own_error_goes_out_as_it_is() -> None:
    def refuse(inputs: list[Any]) -> list[Any]:
        raise InvalidRequestError("Not a number.", param="inputs", code="nan")

    server = Recorder(refuse)
    queued(server, "x")
    assert list(server.step()) == [Failed("0", "InvalidRequestError", "Not a number.", "inputs", "nan")]


def test_an_authors_own_error_goes_out_as_ours_with_all_that_it_says() -> None:
    def refuse(inputs: list[Any]) -> list[Any]:
        raise NoFaceError("No face.", param="images", code="no_face", retry_after_s=2.5)

    server = Recorder(refuse)
    queued(server, "x")
    [failed] = server.step()
    assert failed == Failed("0", "RateLimitError", "No face.", "images", "no_face", 2.5)


@pytest.mark.parametrize("bad", [object(), "\ud800", 1 << 70, {1: object()}])
def test_output_that_cannot_be_encoded_fails_alone_and_nothing_runs_twice(bad: Any) -> None:
    server = Recorder(lambda inputs: [1, bad, [b"x", None, 1.5]], max_wait_ms=0)
    queued(server, 1, 2, 3)
    failed = ("InternalServerError", "The model could not process this input.")
    assert outcome(server) == {"0": 1, "1": failed, "2": [b"x", None, 1.5]}
    assert len(server.batches) == 1


def test_cancelled_before_it_ran() -> None:
    server = Recorder(max_wait_ms=0)
    queued(server, 1, 2)
    server.cancel("0")
    server.cancel("unknown")
    assert outcome(server) == {"1": 4}
    assert server.batches == [[2]]


@pytest.mark.parametrize("kind", [TextGenerationReq, TokenizeReq, DetokenizeReq])
def test_requests_for_text_are_refused(kind: type) -> None:
    with pytest.raises(UnsupportedError, match=kind.__name__):
        Recorder().prepare(kind(request_id="a"))


def test_images_reach_forward_as_a_plain_dict() -> None:
    server = Recorder(lambda inputs: [one["images"] for one in inputs], max_wait_ms=0)
    server.accept(server.prepare(ImageToImageReq(request_id="0", images=[b"png", "aGk="], forward_params={"size": 2})))
    server.accept(server.prepare(ImageToImageReq(request_id="1", images=[])))
    assert outcome(server) == {"0": [b"png", "aGk="], "1": []}
    assert server.batches == [
        [{"images": [b"png", "aGk="], "forward_params": {"size": 2}}, {"images": [], "forward_params": {}}]
    ]


def test_images_for_an_adapter_are_refused() -> None:
    with pytest.raises(UnsupportedError) as refused:
        Recorder().prepare(ImageToImageReq(request_id="0", images=[b"x"], model_adapter_uri="a"))
    assert refused.value.param == "model_adapter_uri"


def test_acceptance_and_name() -> None:
    server = Recorder(served_model_names=("first", "second"))
    assert server.prepare(OneShotReq(request_id="a", inputs=1)).accepted() == Accepted("a", 0)
    [model] = server.served_models()
    assert (model.id, model.uri, model.aliases) == ("first", "numbers", ["second"])


@pytest.mark.parametrize(("gpus", "settled"), [(0, "cpu"), (2, "cuda:0")])
def test_auto_is_a_device_that_torch_knows(monkeypatch: pytest.MonkeyPatch, gpus: int, settled: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    server = Recorder()
    assert server.device_and_dtype() == ("auto", "")
    assert torch.device(server.device) == torch.device(settled)
    assert server.device_and_dtype() == (settled, "")


def test_device_that_load_sets() -> None:
    server = Recorder()
    server.device = "abacus:3"
    assert server.device_and_dtype() == ("abacus:3", "")


def test_device_that_is_named() -> None:
    assert Recorder(model_device="cpu").device == "cpu"
    with pytest.raises(InvalidRequestError, match="abacus"):
        _ = Recorder(model_device="abacus").device


def test_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch_size"):
        Recorder(max_batch_size=0)


def test_author_who_forgets_forward_hears_it() -> None:
    with pytest.raises(TypeError, match=r"OneShotModelServer must define forward"):
        OneShotModelServer("a", "a").forward([])


@contextmanager
def colour_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, EXAMPLE, "--port", str(port)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def test_example_answers_and_stops() -> None:
    port = free_port()
    with colour_server(port) as server:
        client = subprocess.run(
            [sys.executable, EXAMPLE, "--port", str(port), "255,120,10", "5,5,200", "1,2", "120,130,120"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert client.stdout.splitlines() == [
            "[255.0, 120.0, 10.0] orange",
            "[5.0, 5.0, 200.0] blue",
            "[1.0, 2.0] A colour is three numbers.",
            "[120.0, 130.0, 120.0] grey",
        ]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
