"""Questions to the model servers whether they have a request of that handle, which is to end: any gateway may have sent
it there, and the client cannot choose which one it asks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable

from vfastml.engine.dispatch_replies import CancelResult
from vfastml.engine.dispatch_requests import CancelByHandleReq
from vfastml.engine.request_id import gen_request_id
from vfastml.engine.wire import SEND_QUEUE_MESSAGES, encode_request
from vfastml.errors import InternalServerTooBusyError

_PATIENCE_S = 3.0
"""For an answer. The thread that gives it compiles grammars too, for up to half a second each."""

_MAX_UNANSWERED = SEND_QUEUE_MESSAGES // 2
"""Questions that a server may owe an answer. A server whose queue is full does not see heartbeats either, and the
session would be lost for everybody: so a silent one is asked no more."""


class Cancellations:
    """Those of one gateway. `send(endpoint, frame)` says whether the frame is on its way, and never waits."""

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self._send = send
        self._unanswered: defaultdict[str, dict[str, asyncio.Future[int]]] = defaultdict(dict)
        """By endpoint and question. What is sent stays here until it is answered, whether somebody waits or not."""

    async def ask(self, handle: str, endpoints: Iterable[str]) -> bool:
        """Whether that has ended any request in those servers, other gateways' too. Raises InternalServerTooBusyError
        if none was found, and a server cannot be asked or has not answered."""
        asked = self.tell(handle, endpoints)
        sent = [answer for answer in asked if answer is not None]
        try:
            for answer in asyncio.as_completed(sent, timeout=_PATIENCE_S):
                if await answer:
                    return True
        except TimeoutError:
            raise _nobody_knows() from None
        if len(sent) < len(asked):
            raise _nobody_knows()
        return False

    def tell(self, handle: str, endpoints: Iterable[str]) -> list[asyncio.Future[int] | None]:
        """The same for who does not wait. Each server's answer to come: how many requests it has ended; None for one
        that could not be asked."""
        question = CancelByHandleReq(request_id=gen_request_id("cancel"), handle=handle)
        frame = encode_request(question)
        return [self._question(endpoint, question.request_id, frame) for endpoint in endpoints]

    def on_result(self, endpoint: str, result: CancelResult) -> None:
        """A server's answer; one to no question of ours is ignored."""
        answer = self._unanswered[endpoint].pop(result.request_id, None)
        if answer is not None:
            answer.set_result(result.num_requests)

    def on_lost(self, endpoint: str) -> None:
        """That server is gone, and with it whatever it had."""
        for answer in self._unanswered.pop(endpoint, {}).values():
            answer.set_result(0)

    def _question(self, endpoint: str, question_id: str, frame: bytes) -> asyncio.Future[int] | None:
        unanswered = self._unanswered[endpoint]
        if len(unanswered) >= _MAX_UNANSWERED or not self._send(endpoint, frame):
            return None
        unanswered[question_id] = asyncio.get_running_loop().create_future()
        return unanswered[question_id]


def _nobody_knows() -> InternalServerTooBusyError:
    return InternalServerTooBusyError("Not every model server has said whether it has that request.")
