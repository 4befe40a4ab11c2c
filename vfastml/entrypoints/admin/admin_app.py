"""The routes for operators: metrics, load and keys. They are on no listener that clients see."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.entrypoints.admin.admin_auth import AdminAuthMiddleware
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.health import load_body
from vfastml.entrypoints.http_errors import ApiJSONResponse, ErrorMiddleware, install_error_handlers
from vfastml.entrypoints.metrics.gateway_metrics import GatewayMetrics

_WORTH_GZIP_BYTES = 1024


def admin_app(
    engine: DispatchEngine, metrics: GatewayMetrics, hooks: AdminHooks, *, asks_key: bool, always: bool = False
) -> Starlette:
    """`asks_key`: callers need an operator's key, if there is any; `always`: also if there is none."""
    asks_always = always or hooks.has_admin  # now: layers are made only at the first request

    async def show_metrics(request: Request) -> Response:
        body, content_type = await metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def load(_: Request) -> Response:
        return ApiJSONResponse(load_body(engine))

    async def keys(_: Request) -> Response:
        return ApiJSONResponse({"keys": list(await hooks.keys())})

    async def livez(_: Request) -> Response:
        return ApiJSONResponse({"status": "alive"})

    app = Starlette(
        routes=[
            Route("/metrics", show_metrics),
            Route("/load", load),
            Route("/keys", keys),
            Route("/livez", livez),
        ],
        middleware=[
            Middleware(ErrorMiddleware),
            *([Middleware(AdminAuthMiddleware, hooks=hooks, always=asks_always)] if asks_key else []),
            Middleware(GZipMiddleware, minimum_size=_WORTH_GZIP_BYTES),
        ],
    )
    app.router.redirect_slashes = False
    install_error_handlers(app)
    return app
