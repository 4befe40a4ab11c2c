"""FastMLServer: the gateway. Its app is put together here from parts that do not know each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from vfastml import __version__
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.entrypoints.access_log import AccessLogMiddleware
from vfastml.entrypoints.admin.admin_address import admin_url, asks_key, claim_admin, needs_operator
from vfastml.entrypoints.admin.admin_app import admin_app
from vfastml.entrypoints.admin.admin_server import AdminServer
from vfastml.entrypoints.admission import AdmissionMiddleware
from vfastml.entrypoints.anthropic.routes import anthropic_routes
from vfastml.entrypoints.auth import AuthMiddleware
from vfastml.entrypoints.cancel import cancel_route
from vfastml.entrypoints.deadlines import DeadlineMiddleware
from vfastml.entrypoints.disconnect import DisconnectMiddleware
from vfastml.entrypoints.drain import DrainGate, DrainMiddleware
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.greeting import Greeting
from vfastml.entrypoints.health import health_routes
from vfastml.entrypoints.http_errors import ErrorMiddleware, install_error_handlers
from vfastml.entrypoints.keys.key_limits import LIMIT_HEADERS
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.limit_headers import LimitHeadersMiddleware
from vfastml.entrypoints.listening import bind, claim, join
from vfastml.entrypoints.metrics.http_metrics import MetricsMiddleware
from vfastml.entrypoints.openai.chat import chat_route
from vfastml.entrypoints.openai.completions import completions_route
from vfastml.entrypoints.openai.models import models_routes
from vfastml.entrypoints.openai.responses.background import BackgroundResponses
from vfastml.entrypoints.openai.responses.routes import responses_routes
from vfastml.entrypoints.openai.tokenize import tokenize_routes
from vfastml.entrypoints.oversight import Oversight
from vfastml.entrypoints.root_path import RootPathMiddleware
from vfastml.entrypoints.routes import mount
from vfastml.entrypoints.serving import GatewayServer
from vfastml.entrypoints.supervisor_line import READY, SupervisorLine
from vfastml.entrypoints.timings import SERVER_TIMING
from vfastml.utils.logging import configure_logging

_SHOWN_TO_PAGES = (
    *("x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry", SERVER_TIMING),
    *LIMIT_HEADERS,
)
"""Response headers that a web page of another origin may read."""

_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would send paths, queries and the words of errors to whatever the process has set up for it; ours is in
tracing/."""


class Gateway:
    """HTTP in front of a DispatchEngine. Put routes of your own on `app`, then `configure` and `run`: the built-in
    routes are added last, where a path is still free, so yours win.

    Another ASGI server may serve `app` as well: it is complete from its first call on. The address, signals and the
    patience for slow clients are that server's business then. An app that mounts it has to run
    `app.router.lifespan_context`, which starts the engine, in a lifespan of its own."""

    def __init__(self, config: GatewayConfig | None = None, dispatch_engine: DispatchEngine | None = None) -> None:
        self._config = config or GatewayConfig()
        self._engine = dispatch_engine
        self._app: FastAPI | None = None
        self._gate = DrainGate()
        self._background = BackgroundResponses()
        self._shared_balances: int | None = None
        """Descriptor of what all workers of a supervisor have in common."""
        self._is_complete = False
        self._tell_ready: Callable[[], None] = lambda: None
        """Called once a model is there to answer."""

    @property
    def app(self) -> FastAPI:
        """The application, made on first use."""
        if self._app is None:
            self._app = _CompletedApp(
                self._complete,
                title="VFastML",
                version=__version__,
                lifespan=self._lifespan,
                redirect_slashes=False,
                telemetry=_NO_TELEMETRY,
            )
            install_error_handlers(self._app)
        return self._app

    @property
    def dispatch_engine(self) -> DispatchEngine:
        """The way to the model servers, made on first use from what is configured by then."""
        if self._engine is None:
            config = self._config
            self._engine = DispatchEngine(
                config.model_servers,
                hold_s=config.hold_s,
                max_held=config.max_held,
                max_step_age_s=config.max_step_s,
                wire_keys=config.wire_keys,
            )
        return self._engine

    @functools.cached_property
    def _oversight(self) -> Oversight:
        """Made on first use from what is configured by then. Raises ValueError or LedgerError with a sentence for the
        operator."""
        return Oversight(self._config, lambda: self.dispatch_engine, self._shared_balances)

    @functools.cached_property
    def admin_app(self) -> Starlette:
        """The admin listener's routes, for another ASGI server: not below `app`, and where clients do not come. It asks
        for an operator's key if any key is one's. Raises RuntimeError when `admin` is False."""
        return self._admin_app(asks_key=True)

    def configure(self, *, dispatch_engine: str = "async", **options: Any) -> None:
        """Set fields of GatewayConfig; `dispatch_engine` names the kind of engine, of which there is one. Raises
        TypeError for unknown options, ValueError for a bad value, and RuntimeError once the engine or the routes have
        been made from the values of before."""
        if dispatch_engine != "async":
            raise ValueError(f"unknown dispatch engine {dispatch_engine!r}: only 'async' exists")
        if self._is_complete or self._engine is not None or "_oversight" in vars(self):
            raise RuntimeError("configure() comes before build(), run(), serving and the first use of dispatch_engine")
        self._config = self._config.with_options(options)

    def build(self) -> FastAPI:
        """`app` with its built-in routes, keys and limits, which it otherwise gets when it is first called. A second
        call changes nothing."""
        self._complete()
        return self.app

    def run(self, host: str = "127.0.0.1", port: int = 8080) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is open and return. Leaves by SystemExit 1, with one line on
        stderr, when the address cannot be had, or may not be without keys, or when key file or ledger are not right.

        This is one process. Several on one port are for the command line (`vfastml api-server --workers N`), whose
        gateway has no routes but the built-in ones; an app of your own gets them from another ASGI server."""
        config = self._config
        configure_logging(config.log_level, config.log_format, "gateway")
        with claim(bind, host, port, config) as listener:
            hooks = self._oversight_or_exit().admin_hooks
            admin = claim_admin(bind, port and listener.getsockname()[1], config, hooks)
            greeting = Greeting(host, listener, with_key=config.asks_for_keys, admin_url=admin_url(config, admin))
            greeting.tell_address()
            self._tell_ready = greeting.tell_example
            self._server(admin).run(sockets=[listener])

    def run_worker(self, host: str, port: int, supervisor: SupervisorLine, shared_balances: int | None = None) -> None:
        """Serve as `run` does, on a port that the supervisor keeps, until it says so or is gone; the greeting is its
        part. `shared_balances` is the descriptor of the memory that it has given all its workers."""
        self._shared_balances = shared_balances
        configure_logging(self._config.log_level, self._config.log_format, "gateway")
        self._oversight_or_exit()
        self.build()  # before the port is joined: from then on connections wait for this process
        with claim(join, host, port, self._config) as listener:
            admin = claim_admin(join, port, self._config)
            self._tell_ready = functools.partial(supervisor.tell, READY)
            self._server(admin, supervisor).run(sockets=[listener])

    def _oversight_or_exit(self) -> Oversight:
        try:
            return self._oversight
        except (ValueError, LedgerError) as error:
            sys.exit(f"Cannot start: {error}.")

    def _server(self, admin: socket.socket | None, supervisor: SupervisorLine | None = None) -> GatewayServer:
        config, metrics = self._config, self._oversight.metrics
        return GatewayServer(
            self.build(),
            self._gate,
            config.drain_timeout_s,
            self.dispatch_engine.close,
            supervisor,
            drain_delay_s=config.drain_delay_s,
            body_timeout_s=config.body_timeout_s,
            **({} if metrics is None else {"on_refused": metrics.http.on_refused}),
            admin=None if admin is None else AdminServer(self._admin_app(asks_key=asks_key(config)), admin),
        )

    def _admin_app(self, *, asks_key: bool) -> Starlette:
        if self._oversight.metrics is None:
            raise RuntimeError("this gateway measures nothing: it was configured with admin=False")
        return admin_app(
            self.dispatch_engine,
            self._oversight.metrics,
            self._oversight.admin_hooks,
            asks_key=asks_key,
            always=needs_operator(self._config),
        )

    def _complete(self) -> None:
        if not self._is_complete:
            self.dispatch_engine.observe(*self._oversight.observers())
            self._add_routes()
            self._add_layers()
            self._is_complete = True

    def _add_routes(self) -> None:
        engine, keep_alive_s = self.dispatch_engine, self._config.keep_alive_s
        mount(
            self.app,
            [
                chat_route(engine, keep_alive_s),
                completions_route(engine, keep_alive_s),
                cancel_route(engine),
                *responses_routes(engine, self._background, self._config, self._oversight.limits),
                *models_routes(engine),
                *tokenize_routes(engine),
                *anthropic_routes(engine, keep_alive_s),
                *health_routes(engine, self._gate),
            ],
        )

    def _add_layers(self) -> None:
        # The last one added is the outermost.
        app, config = self.app, self._config
        app.add_middleware(DisconnectMiddleware, max_body_bytes=config.max_body_bytes)
        app.add_middleware(AdmissionMiddleware, max_open=config.max_open, limits=self._oversight.limits)
        app.add_middleware(DeadlineMiddleware, timeout_s=config.request_timeout_s)
        app.add_middleware(DrainMiddleware, gate=self._gate)
        app.add_middleware(AuthMiddleware, keys=self._oversight.keys)
        app.add_middleware(ErrorMiddleware)
        if config.asks_for_keys:
            app.add_middleware(LimitHeadersMiddleware, limits=self._oversight.limits)
        if config.cors_origins:
            # Outside of keys, as a preflight has none, and of errors, which a page may read too. All headers that a
            # page asks for are allowed: clients send many, and keys are the only thing that opens a route.
            app.add_middleware(
                CORSMiddleware,
                allow_origins=config.cors_origins,
                allow_methods=("*",),
                allow_headers=("*",),
                expose_headers=_SHOWN_TO_PAGES,
            )
        if (tracing := self._oversight.tracing) is not None:
            app.add_middleware(tracing.layer, tracer=tracing.tracer, share=config.trace_sample)
        app.add_middleware(AccessLogMiddleware, shown=config.access_log)
        if (metrics := self._oversight.metrics) is not None:
            app.add_middleware(MetricsMiddleware, metrics=metrics.http, paths=self._paths)
        if config.root_path:
            app.add_middleware(RootPathMiddleware, root_path=config.root_path)

    def _paths(self) -> set[str]:
        return {path for route in self.app.routes if (path := getattr(route, "path", ""))}

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        configure_logging(self._config.log_level, self._config.log_format, "gateway")
        await self.dispatch_engine.start()
        self._oversight.start()
        waiting = asyncio.create_task(self._wait_ready())
        try:
            yield
        finally:
            waiting.cancel()
            await self._background.close()
            await self.dispatch_engine.close()
            await self._oversight.close()

    async def _wait_ready(self) -> None:
        await self.dispatch_engine.wait_ready()
        self._tell_ready()


class _CompletedApp(FastAPI):
    """Has itself completed on its first call, before its layers are put together: whatever serves it, nothing that
    guards it can be missing."""

    def __init__(self, complete: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._complete = complete

    def build_middleware_stack(self) -> ASGIApp:
        self._complete()
        return super().build_middleware_stack()


FastMLServer = Gateway()
"""The gateway of this process."""
