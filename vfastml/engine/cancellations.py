"""Questions to the model servers whether they have a request of that handle, which is to end: any gateway may have sent
it there, and the client cannot choose which one it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from vfastml.engine.dispatch_replies import CancelResult
from vfastml.engine.dispatch_requests import CancelByHandleReq
from vfastml.engine.request_id import gen_request_id
from vfastml.engine.wire import encode_request
from vfastml.errors import InternalServerTooBusyError

_PATIENCE_S = 3.0
"""For an answer. The thread that gives it compiles grammars too, for up to half a second each."""


class Cancellations:
    """Those of one gateway that wait for answers. `send_surely(endpoint, frame)` sends, or loses the session."""

    def __init__(self, send_surely: Callable[[str, bytes], None]) -> None:
        self._send_surely = send_surely
        self._answers: dict[tuple[str, str], asyncio.Future[int]] = {}
        """By endpoint and question."""

    async def ask(self, handle: str, endpoints: Iterable[str]) -> int:
        """How many requests that has ended in those servers, other gateways' too. Raises InternalServerTooBusyError if
        none was found, and a server has not answered."""
        question = CancelByHandleReq(request_id=gen_request_id("cancel"), handle=handle)
        asked = [self._send(endpoint, question) for endpoint in endpoints]
        try:
            answered, silent = await asyncio.wait(asked, timeout=_PATIENCE_S) if asked else (set(), set())
        finally:
            self._forget(question.request_id)
        found = sum(answer.result() for answer in answered)
        if silent and not found:
            raise InternalServerTooBusyError("Not every model server has said whether it has that request.")
        return found

    def on_result(self, endpoint: str, result: CancelResult) -> None:
        """A server's answer; one that is not waited for any more is ignored."""
        self._settle((endpoint, result.request_id), result.num_requests)

    def on_lost(self, endpoint: str) -> None:
        """That server is gone, and with it whatever it had."""
        for key in [key for key in self._answers if key[0] == endpoint]:
            self._settle(key, 0)

    def _send(self, endpoint: str, question: CancelByHandleReq) -> asyncio.Future[int]:
        answer = asyncio.get_running_loop().create_future()
        self._answers[endpoint, question.request_id] = answer
        self._send_surely(endpoint, encode_request(question))
        return answer

    def _settle(self, key: tuple[str, str], num_requests: int) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None and not answer.done():
            answer.set_result(num_requests)

    def _forget(self, question_id: str) -> None:
        for key in [key for key in self._answers if key[1] == question_id]:
            del self._answers[key]
