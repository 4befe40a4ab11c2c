"""FastMLServer: the gateway. Its app is put together here from parts that do not know each other."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from vfastml import __version__
from vfastml.engine.addresses import bracketed, is_loopback
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.entrypoints.access_log import AccessLogMiddleware
from vfastml.entrypoints.auth import AuthMiddleware, KeyRing
from vfastml.entrypoints.disconnect import DisconnectMiddleware
from vfastml.entrypoints.drain import DrainGate, DrainMiddleware
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.health import health_routes
from vfastml.entrypoints.http_errors import ErrorMiddleware, install_error_handlers
from vfastml.entrypoints.openai.chat import chat_route
from vfastml.entrypoints.openai.completions import completions_route
from vfastml.entrypoints.openai.models import models_routes
from vfastml.entrypoints.openai.tokenize import tokenize_routes
from vfastml.entrypoints.routes import mount
from vfastml.entrypoints.serving import GatewayServer, bind
from vfastml.utils.logging import configure_logging


class Gateway:
    """HTTP in front of a DispatchEngine. Put routes of your own on `app`, then `configure` and `run`: the built-in
    routes are added last, where a path is still free, so yours win."""

    def __init__(self, config: GatewayConfig | None = None, dispatch_engine: DispatchEngine | None = None) -> None:
        self._config = config or GatewayConfig()
        self._engine = dispatch_engine
        self._app: FastAPI | None = None
        self._gate = DrainGate()
        self._built = False
        self._advice: str | None = None
        """How to call what `run` serves, shown once a model is there to answer."""

    @property
    def app(self) -> FastAPI:
        """The application, made on first use."""
        if self._app is None:
            self._app = FastAPI(title="VFastML", version=__version__, lifespan=self._lifespan, redirect_slashes=False)
            install_error_handlers(self._app)
        return self._app

    @property
    def dispatch_engine(self) -> DispatchEngine:
        """The way to the model servers, made on first use from what is configured by then."""
        if self._engine is None:
            config = self._config
            self._engine = DispatchEngine(config.model_servers, hold_s=config.hold_s, max_held=config.max_held)
        return self._engine

    def configure(self, **options: Any) -> None:
        """Set fields of GatewayConfig. Raises TypeError for an unknown one, ValueError for a bad value, and
        RuntimeError once the engine or the routes have been made from the values of before."""
        if self._built or self._engine is not None:
            raise RuntimeError("configure() comes before build(), run() and the first use of dispatch_engine")
        self._config = self._config.with_options(options)

    def build(self) -> FastAPI:
        """The complete application: built-in routes, keys, limits. A second call changes nothing."""
        if not self._built:
            self._built = True
            self._add_routes()
            self._add_layers()
        return self.app

    def run(self, host: str = "127.0.0.1", port: int = 8080) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is open and return. Leaves by SystemExit 1, with one line on
        stderr, when the address cannot be had, or may not be without keys."""
        config = self._config
        configure_logging(config.log_level)
        if not (is_loopback(host) or config.api_keys or config.insecure):
            sys.exit(f"Refusing to listen on {host} without API keys: set some, or say that insecure is meant.")
        try:
            listener = bind(host, port)
        except OSError as error:
            sys.exit(f"Cannot listen on {host} port {port}: {error.strerror}.")
        server = GatewayServer(self.build(), self._gate, config.drain_timeout_s, self.dispatch_engine.close)
        with listener:
            url = f"http://{bracketed(host)}:{listener.getsockname()[1]}"
            _say(f"VFastML listens on {url}")
            self._advice = _curl(url, with_key=bool(config.api_keys))
            server.run(sockets=[listener])

    def _add_routes(self) -> None:
        engine, keep_alive_s = self.dispatch_engine, self._config.keep_alive_s
        mount(
            self.app,
            [
                chat_route(engine, keep_alive_s),
                completions_route(engine, keep_alive_s),
                *models_routes(engine),
                *tokenize_routes(engine),
                *health_routes(engine, self._gate),
            ],
        )

    def _add_layers(self) -> None:
        # The last one added is the outermost.
        self.app.add_middleware(DisconnectMiddleware, max_body_bytes=self._config.max_body_bytes)
        self.app.add_middleware(DrainMiddleware, gate=self._gate)
        self.app.add_middleware(AuthMiddleware, keys=KeyRing(self._config.api_keys))
        self.app.add_middleware(ErrorMiddleware)
        self.app.add_middleware(AccessLogMiddleware)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        await self.dispatch_engine.start()
        advising = asyncio.create_task(self._advise_when_ready())
        try:
            yield
        finally:
            advising.cancel()
            await self.dispatch_engine.close()

    async def _advise_when_ready(self) -> None:
        await self.dispatch_engine.wait_ready()
        if self._advice is not None:
            _say(f"Try: {self._advice}")


FastMLServer = Gateway()
"""The gateway of this process."""


def _curl(url: str, *, with_key: bool) -> str:
    key = " -H 'Authorization: Bearer YOUR_KEY'" if with_key else ""
    body = """{"messages": [{"role": "user", "content": "Hello!"}]}"""
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
