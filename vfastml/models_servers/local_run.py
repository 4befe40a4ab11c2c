"""Requests answered in the process that holds the model: no sockets, no threads, no signals."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from vfastml.engine.dispatch_replies import Detokenized, Output, ServedModel, Tokenized
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.engine.dispatch_result import DispatchRequestResult, GatheredReplies
from vfastml.engine.interrupts import interrupts_held
from vfastml.errors import InvalidRequestError, ModelNotFoundError, UnsupportedError, VFastMLError
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.unsent_replies import Answer, WorkReply, sendable


class LoadedServer(Protocol):
    """What is asked of a ModelServer after `load`; see there."""

    def served_models(self) -> list[ServedModel]: ...

    def prepare(self, request: WorkReq) -> Work | Answer: ...

    def accept(self, work: Work) -> None: ...

    def cancel(self, request_id: str) -> None: ...

    def due_in_s(self) -> float | None: ...

    def step(self) -> Iterable[WorkReply]: ...


class LocalRun:
    """One call of `run_until_idle`. Ctrl-C never finds the server in the middle of its books: it waits for the end of a
    step."""

    def __init__(self, server: LoadedServer) -> None:
        self._server = server
        self._models = server.served_models()
        self._open: dict[str, GatheredReplies] = {}

    def answer(self, requests: Sequence[WorkReq]) -> list[DispatchRequestResult]:
        """One result for each, in their order. Whatever is raised, nothing stays open in the server."""
        gathered = [GatheredReplies(request, self._models[0].id) for request in requests]
        try:
            for one in gathered:
                self._begin(one)
            while self._open and (due := self._server.due_in_s()) is not None:
                time.sleep(due)
                self._step()
        finally:
            with interrupts_held():
                for request_id in self._open:
                    self._server.cancel(request_id)
        return [one.result() for one in gathered]

    def _begin(self, one: GatheredReplies) -> None:
        try:
            self._check(one.request)
            prepared = self._server.prepare(one.request)
        except VFastMLError as error:
            one.error = error
            return
        if isinstance(prepared, Tokenized | Detokenized):
            one.add(prepared)
        else:
            one.add(prepared.accepted())
            with interrupts_held():
                self._open[prepared.request_id] = one
                self._server.accept(prepared)

    def _check(self, request: WorkReq) -> None:
        """What a gateway and the link would look at on its way."""
        names = {name for model in self._models for name in (model.id, model.uri, *model.aliases)}
        if request.model_uri is not None and request.model_uri not in names:
            raise ModelNotFoundError("The model does not exist.", param="model")
        if request.request_id in self._open:
            raise InvalidRequestError("A request with this id is already open.", param="request_id")
        if isinstance(request, TextGenerationReq) and request.deadline_s is not None:
            raise UnsupportedError("Only a gateway keeps a 'deadline_s'; 'max_time' works here.", param="deadline_s")

    def _step(self) -> None:
        with interrupts_held():
            for reply in self._server.step():
                self._take(reply)

    def _take(self, reply: WorkReply) -> None:
        one = self._open.get(reply.request_id)
        if one is not None:
            one.add(_as_received(reply))
            if one.ended:
                del self._open[reply.request_id]


def _as_received(reply: WorkReply) -> WorkReply:
    """As it would come out of the wire: an author's value as plain msgpack values, or a failure if it has no such
    form."""
    told = sendable(reply) if isinstance(reply, Output) else reply
    if isinstance(told, Output):
        return Output(told.request_id, msgspec.msgpack.decode(msgspec.msgpack.encode(told.output)))
    return told
