"""A model server without a model, in the test's own process or in one of its own (`python fake_server.py PORT`)."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Callable

import zmq
import zmq.asyncio

from vfastml.engine.dispatch_replies import (
    Accepted,
    CancelResult,
    Delta,
    Detokenized,
    Finished,
    Hello,
    Output,
    Reply,
    ServedModel,
    Status,
    StepReply,
    Tokenized,
    Usage,
)
from vfastml.engine.dispatch_requests import (
    CancelByHandleReq,
    CancelReq,
    DetokenizeReq,
    Join,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.engine.wire import PROTOCOL, bind_router, bound_port, decode_request, encode_reply

_starts = itertools.count()


def echo(server: "FakeServer", request: WorkReq) -> None:
    """Answer with the prompt, one word for each step."""
    if isinstance(request, TokenizeReq):
        server.reply(Tokenized(request.request_id, [ord(char) for char in request.prompt or ""], 512))
    elif isinstance(request, DetokenizeReq):
        server.reply(Detokenized(request.request_id, "".join(chr(token) for token in request.tokens)))
    elif isinstance(request, TextGenerationReq):
        words = (request.prompt or "").split()
        server.accept(request.request_id, len(words))
        for word in words:
            server.say(request.request_id, *(f"{word} " for _ in range(request.n or 1)))
        server.finish(request.request_id, *("stop" for _ in range(request.n or 1)), completion_tokens=len(words))
    else:
        server.reply(Output(request.request_id, request.inputs))


def silent(server: "FakeServer", request: WorkReq) -> None:
    """Take the request and say nothing."""


def first_word(server: "FakeServer", request: WorkReq) -> None:
    """Accept, say one word, and then nothing more."""
    server.accept(request.request_id)
    server.say(request.request_id, "one ")


class FakeServer:
    """Listens from the moment it is made. `answer(server, request)` is called for each request; tests send the rest."""

    def __init__(
        self,
        *,
        port: int = 0,
        models: tuple[str, ...] = ("m",),
        answer: Callable[["FakeServer", WorkReq], None] = echo,
        loading: bool = False,
        protocol: int = PROTOCOL,
    ) -> None:
        self.models = models
        self.answer = answer
        self.loading = loading
        self.protocol = protocol
        self.server_id = f"fake-{next(_starts)}"
        self.requests: list[WorkReq] = []
        self.cancelled: list[str] = []
        self.asked_handles: list[str] = []
        self.num_found: int | None = 0
        """What it says to CancelByHandleReq; None: nothing."""
        self.joins: list[bytes] = []
        self._peers: dict[str, bytes] = {}
        self._context = zmq.asyncio.Context()
        self._socket = bind_router(self._context, "127.0.0.1", port)
        self.port = bound_port(self._socket)
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def stop(self) -> None:
        """Close the socket, as the death of the process would."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if not self._socket.closed:
            self._socket.close(linger=0)
            self._context.term()

    def hello(self) -> Hello:
        return Hello(
            self.protocol, self.server_id, "text_generation", [ServedModel(m, f"org/{m}") for m in self.models]
        )

    def become_ready(self) -> None:
        self.loading = False
        self.broadcast(self.hello())

    def broadcast(self, reply: Reply) -> None:
        """To every gateway that has joined."""
        self.broadcast_frame(encode_reply(reply))

    def broadcast_frame(self, frame: bytes) -> None:
        for peer in dict.fromkeys(self.joins):
            with contextlib.suppress(zmq.ZMQError):  # it has begun a new session, under another name
                self._send(peer, frame)

    def reply(self, reply: Reply, *, to: str | None = None) -> None:
        """To the gateway that sent that request; `to` where the reply does not say."""
        self._send(self._peers[to or reply.request_id], encode_reply(reply))

    def accept(self, request_id: str, prompt_tokens: int = 1) -> None:
        self.reply(Accepted(request_id, prompt_tokens, [7] * prompt_tokens))

    def say(self, request_id: str, *texts: str) -> None:
        """One step with a text for each choice."""
        deltas = [Delta(request_id, index, text, [len(text)]) for index, text in enumerate(texts)]
        self.reply(StepReply(deltas), to=request_id)

    def finish(self, request_id: str, *reasons: str, completion_tokens: int = 1) -> None:
        deltas = [
            Delta(request_id, index, "", finish_reason=reason) for index, reason in enumerate(reasons or ("stop",))
        ]
        usage = Usage(prompt_tokens=1, completion_tokens=completion_tokens)
        self.reply(StepReply(deltas, [Finished(request_id, usage)]), to=request_id)

    def _send(self, peer: bytes, frame: bytes) -> None:
        # The plain socket under the asyncio one: what cannot be sent raises here and now.
        zmq.Socket.shadow(self._socket.underlying).send_multipart([peer, frame], zmq.NOBLOCK)

    async def _read(self) -> None:
        while True:
            peer, frame = await self._socket.recv_multipart()
            self._on_request(peer, decode_request(frame))

    def _on_request(self, peer: bytes, request) -> None:
        if isinstance(request, Join):
            self.joins.append(peer)
            self._send(peer, encode_reply(Status("loading weights", 0.5, 3.0) if self.loading else self.hello()))
        elif isinstance(request, CancelReq):
            self.cancelled.append(request.request_id)
        elif isinstance(request, CancelByHandleReq):
            self.asked_handles.append(request.handle)
            if self.num_found is not None:
                self._send(peer, encode_reply(CancelResult(request.request_id, self.num_found)))
        else:
            self._peers[request.request_id] = peer
            self.requests.append(request)
            self.answer(self, request)


async def until(condition: Callable[[], object], timeout_s: float = 4.0) -> float:
    """Seconds until the condition held; fails the test when it never does."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "condition never held"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


async def _serve(port: int) -> None:
    server = FakeServer(port=port, answer=first_word)
    print(server.port, flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
