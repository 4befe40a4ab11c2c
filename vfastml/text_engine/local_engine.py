"""An engine that its callers drive themselves, in one thread: each of them steps until its own requests have ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vfastml.engine.dispatch_result import GatheredReplies
from vfastml.engine.interrupts import interrupts_held
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.text_engine import TextEngine


class LocalEngine:
    """Several callers may have requests open at the same time; a step moves all of them on."""

    def __init__(self, engine: TextEngine, model: str) -> None:
        self._engine = engine
        self._model = model
        self._in_use = False
        self._open: dict[str, GatheredReplies] = {}
        self._dropped: list[str] = []
        """Requests that nobody wants any more, and that the engine has not been told of."""

    def begin(self, requests: Iterable[EncodedRequest]) -> list[GatheredReplies]:
        """Queues the requests. What is returned fills with the steps to come."""
        gathered = []
        with self._using() as engine:
            for encoded in requests:
                one = GatheredReplies(encoded.request, self._model, encoded.accepted())
                self._open[encoded.request_id] = one
                engine.add(encoded)
                gathered.append(one)
        return gathered

    def step(self) -> list[GatheredReplies]:
        """Returns those that have ended. Raises only if the model itself breaks."""
        ended = []
        with self._using() as engine:
            for reply in engine.step():
                if (one := self._open.get(reply.request_id)) is not None:
                    one.add(reply)
                    if one.ended:
                        ended.append(self._open.pop(reply.request_id))
        return ended

    def cancel(self, request_ids: Iterable[str]) -> None:
        """Forgets these requests and frees their blocks; without effect on those that have ended."""
        self._dropped.extend(request_ids)
        if not self._in_use:  # the garbage collector may end a caller at any place in a step
            with self._using():
                pass  # leaving tells the engine

    @contextmanager
    def _using(self) -> Iterator[TextEngine]:
        """Whatever would stop a request meanwhile, Ctrl-C or a caller that ends, waits until the engine has put its
        books in order."""
        with interrupts_held():
            self._in_use = True
            try:
                yield self._engine
            finally:
                self._in_use = False
                while self._dropped:
                    request_id = self._dropped.pop()
                    if self._open.pop(request_id, None) is not None:
                        self._engine.cancel(request_id)
