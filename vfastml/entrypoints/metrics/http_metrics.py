"""What a gateway counts of HTTP: requests, and those that it turned away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.entrypoints.access_log import CLIENT_CLOSED_REQUEST
from vfastml.entrypoints.http_errors import ERROR_CODE, SERVER_STATUS
from vfastml.entrypoints.metrics.labelled_counter import LabelledCounter
from vfastml.entrypoints.request_notes import METHODS
from vfastml.entrypoints.root_path import route_path

_OTHER = "other"
"""Stands for every path without a route, and for every method that is none of HTTP's: nobody can make series up."""

_REASON_OF_CODE = {
    "queue_full": "queue_full",
    "insufficient_quota": "quota",
    "server_lost": "server_lost",
}
_REASON_OF_STATUS = {
    401: "no_key",
    403: "forbidden",
    408: "too_slow",
    413: "too_large",
    429: "rate_limit",
    431: "too_large",
    503: "unavailable",
}
REASONS = tuple(sorted({*_REASON_OF_CODE.values(), *_REASON_OF_STATUS.values()}))
"""Why a request is turned away before a model has done anything for it."""


class HttpMetrics:
    """`registry` None: they are collected otherwise, from the files of all processes."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._requests = LabelledCounter(
            "http_requests",
            "HTTP requests that have been answered, by route, method and status; 499: the client went away.",
            ("route", "method", "status"),
            registry,
        )
        self._open = Gauge(
            "vfastml:http_requests_open",
            "HTTP requests whose answers have not ended.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        rejections = Counter(
            "vfastml:admission_rejections",
            "HTTP requests that were turned away before a model began with them, by the reason.",
            ("reason",),
            registry=registry,
        )
        # All from the start: what appears with its first event has no increase.
        self._rejections = {reason: rejections.labels(reason) for reason in REASONS}

    def on_begun(self) -> None:
        """A request's headers are there."""
        self._open.inc()

    def on_ended(self, route: str, method: str, status: int, code: str | None) -> None:
        """Its answer has ended; `code` is the error's, if it is one."""
        self._open.dec()
        self._count(route, method, status, code)

    def on_refused(self, status: int) -> None:
        """What was no request yet, or no valid one, was answered with that status by the server itself."""
        self._count(_OTHER, _OTHER, status, None)

    def _count(self, route: str, method: str, status: int, code: str | None) -> None:
        self._requests.inc(route, method, str(status))
        if status in _REASON_OF_STATUS:
            self._rejections[_REASON_OF_CODE.get(code or "", _REASON_OF_STATUS[status])].inc()


class MetricsMiddleware:
    """Outside of all that answers. `paths` gives the paths of the app's routes, as templates, and is asked at the first
    request."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, paths: Callable[[], Iterable[str]]) -> None:
        self.app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = CLIENT_CLOSED_REQUEST

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.on_begun()
        try:
            await self.app(scope, receive, watched_send)
        finally:
            method = scope["method"] if scope["method"] in METHODS else _OTHER
            status = scope.get(SERVER_STATUS, status)
            self._metrics.on_ended(self._route(scope), method, status, scope.get(ERROR_CODE))

    @cached_property
    def _known_paths(self) -> frozenset[str]:
        return frozenset(self._paths())

    def _route(self, scope: Scope) -> str:
        """Its template, also of a request that was refused before any routing, unless the path has parameters."""
        template = getattr(scope.get("route"), "path", None) or route_path(scope)
        return template if template in self._known_paths else _OTHER
