"""What is learnt of an HTTP request on its way in and out, for its log line and its trace. Never a word of a client's,
but for a short and plain id."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from vfastml.engine.request_observer import ObservedRequest, SilentObserver

MAX_DISPATCHED = 16
"""Ids that are kept of what one HTTP request has dispatched: a list of prompts may be long."""


@dataclass(slots=True)
class RequestNotes:
    """Of one HTTP request."""

    request_id: str
    """Its `x-request-id`."""
    trace_id: str | None = None
    """Of the trace that it belongs to, its client's or our own."""
    dispatched: list[str] = field(default_factory=list)
    """The ids under which model servers, and the ledger, know what it has dispatched."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def fields(self) -> dict[str, Any]:
        """For a log line: what is known."""
        known: dict[str, Any] = {"request_id": self.request_id}
        if self.trace_id is not None:
            known["trace_id"] = self.trace_id
        if self.dispatched:
            known |= {"dispatched": self.dispatched, "prompt_tokens": self.prompt_tokens}
            known |= {"completion_tokens": self.completion_tokens}
        return known


NOTES: ContextVar[RequestNotes | None] = ContextVar("vfastml.request_notes", default=None)
"""Those of the HTTP request that this task, and those that it starts, work for."""


METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""HTTP's own: a client's others are not named in metrics and traces."""


def route_template(scope: Scope) -> str | None:
    """The path of the route that has answered, with its parameters' names in the place of values; None: no route."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


class TokenNotes(SilentObserver):
    """Notes what is dispatched for an HTTP request, and the tokens that it came to."""

    def __init__(self) -> None:
        self._notes: dict[ObservedRequest, RequestNotes] = {}

    def on_dispatched(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        notes = NOTES.get()
        if notes is None:
            return
        self._notes[observed] = notes
        if len(notes.dispatched) < MAX_DISPATCHED:
            notes.dispatched.append(observed.request_id)

    def on_ended(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        notes = self._notes.pop(observed, None)
        if notes is not None:
            notes.prompt_tokens += observed.usage_so_far.prompt_tokens
            notes.completion_tokens += observed.usage_so_far.completion_tokens
