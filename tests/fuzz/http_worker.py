"""A client that sends one case after the other, and looks at each answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from random import Random

import httptools

from tests.fuzz.findings import Findings
from tests.fuzz.http_cases import HttpCase, http_case
from tests.fuzz.http_reply import HttpReplies

_ANSWER_S = 60.0
"""For a whole request; a held one is refused after 30 s."""
_SILENCE_S = 0.1
"""For what may as well be the beginning of a request."""
_GONE = (ConnectionError, httptools.HttpParserError, asyncio.IncompleteReadError)
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset. Tens of thousands of connections in TIME_WAIT would leave no port."""


class HttpWorker:
    """Keeps its connection for as long as the server and the cases let it."""

    def __init__(self, port: int, findings: Findings) -> None:
        self._port = port
        self._findings = findings
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send_all(self, seed: int, numbers: Iterable[int]) -> None:
        """Those cases, in order."""
        for number in numbers:
            await self._send(number, http_case(Random(f"{seed}:{number}")))
        self._close()

    async def _send(self, number: int, case: HttpCase) -> None:
        answer = HttpReplies()
        try:
            await asyncio.wait_for(self._exchange(case, answer), _ANSWER_S if case.whole else _SILENCE_S)
        except TimeoutError:
            if case.whole:
                self._findings.add(f"no whole answer within {_ANSWER_S:.0f} s", number, case.data)
        except _GONE:
            if case.whole and not answer.replies:
                self._findings.add("the connection was closed without an answer", number, case.data)
        self._look(number, case, answer)
        if not (case.whole and answer.is_whole and answer.stays_open):
            self._close()

    def _look(self, number: int, case: HttpCase, answer: HttpReplies) -> None:
        self._findings.note("HTTP", str(answer.replies[-1].status) if answer.replies else "no answer")
        for reply in answer.replies:
            if problem := reply.problem():
                self._findings.add(f"{problem}: {bytes(reply.body[:200])!r}", number, case.data)

    async def _exchange(self, case: HttpCase, answer: HttpReplies) -> None:
        """Until the last answer is whole; where several requests were sent, some may be answered later."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        self._writer.write(case.data)
        while not (answer.is_whole and case.whole):
            data = await self._reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("closed by the server")
            answer.feed(data)

    def _close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._writer.close()
            self._reader = self._writer = None
