"""Who watches requests: metrics, traces, books and limits are told of each, through these four calls alone."""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from vfastml.engine.dispatch_replies import Delta, Terminal, Timings, Usage
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.engine.tenant import Tenant
from vfastml.errors import VFastMLError
from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_trouble = RareWarning(_log)


class ObservedRequest(Protocol):
    """What observers may see of a request (a DispatchTask)."""

    request: WorkReq
    """As it travels: its cache salt and handles are made. An observer may put another one in its place before it is
    sent."""
    tenant: Tenant | None
    model: str | None
    """The served id of the model, from the moment that a server was picked."""
    endpoint: str | None
    """Of the model server that it was sent to last."""
    dispatched_s: float
    """When, on time.monotonic's clock."""
    num_generated_tokens: int
    """That have come so far, of all choices."""
    usage: Usage | None
    timings: Timings | None

    @property
    def request_id(self) -> str:
        """Of the request."""

    @property
    def num_prompt_tokens(self) -> int:
        """0 until a server has accepted it."""

    @property
    def usage_so_far(self) -> Usage:
        """What it came to; of one that has not finished, what its client may have seen."""

    @property
    def answer(self) -> Terminal | None:
        """The server's terminal, unless it is an error."""

    @property
    def error(self) -> VFastMLError | None:
        """What it failed with, if it has."""


class RequestObserver(Protocol):
    """Called on the event loop's thread; only `on_dispatched` in the context of whoever dispatched. What it does has to
    be quick: deltas come by the thousand. What it raises, but for `on_dispatched`, is logged, and disturbs nobody."""

    def on_dispatched(self, observed: ObservedRequest) -> None:
        """Before the request goes anywhere. Raises a VFastMLError to refuse it, which `on_ended` hears of too, also of
        observers that were not asked any more."""

    def on_accepted(self, observed: ObservedRequest) -> None:
        """A model server has validated and queued it: `num_prompt_tokens` is known. Twice if the request moved."""

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        """New text of a choice."""

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        """Exactly once: the request has its usage, or its error. Whoever waits for the answer gets its end only when
        the future is done, however it is done."""


class SilentObserver:
    """Hears nothing: a base for those that care for some of the calls."""

    def on_dispatched(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""

    def on_accepted(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        """See RequestObserver."""

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        """See RequestObserver."""
        return None


def undisturbed(tell: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """What the call of an observer returns; None if it raises: the requests that it was told of go on."""
    try:
        return tell(*args, **kwargs)
    except Exception as error:
        _trouble.warn("What watches requests has failed in %s: %r", tell.__qualname__, error)
        return None
