"""Whether the gateway lives, has started and is ready; how busy the service is; what version it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vfastml import __version__
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Load, ServedModel
from vfastml.engine.server_table import ServerView
from vfastml.engine.tenant import TENANT, Tenant
from vfastml.entrypoints.drain import DrainGate
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.routes import Endpoint, Route

_RETRY_AFTER = {"retry-after": "1"}


def health_routes(engine: DispatchEngine, gate: DrainGate) -> list[Route]:
    """The probes, /version and /load."""

    async def livez(_: Request) -> Response:
        return ApiJSONResponse({"status": "alive"})

    async def startupz(_: Request) -> Response:
        startup = engine.startup()
        body = {"phase": startup.phase, "progress": startup.progress, "elapsed_s": startup.elapsed_s}
        return _probe(startup.done, {"status": "started" if startup.done else "starting", **body})

    async def readyz(_: Request) -> Response:
        if gate.is_leaving:
            return _probe(False, {"status": "draining"})
        ready = engine.is_ready()
        return _probe(ready, {"status": "ready" if ready else "not_ready"})

    async def show_version(_: Request) -> Response:
        return ApiJSONResponse({"version": __version__})

    async def load(_: Request) -> Response:
        return ApiJSONResponse(load_body(engine, TENANT.get()))

    return [
        *_get_and_head("/livez", livez, "Whether the gateway answers at all"),
        *_get_and_head("/startupz", startupz, "Whether the model servers have loaded, and how far they are"),
        *_get_and_head("/readyz", readyz, "Whether requests can be answered now"),
        *_get_and_head("/health", readyz, "The same as /readyz"),
        Route("GET", "/version", show_version, "The version of the server"),
        Route("GET", "/load", load, "How busy the model servers are"),
    ]


def load_body(engine: DispatchEngine, tenant: Tenant | None = None) -> dict[str, Any]:
    """How busy the model servers are: in all, and each. A tenant is shown those with models that it may use, and of
    their models these."""
    servers = engine.servers()
    if tenant is not None and tenant.models is not None:
        servers = [seen for server in servers if (seen := _seen_by(tenant, server)).models]
    return {**_sums(servers), "open_requests": engine.open_requests, "servers": [_server_body(s) for s in servers]}


def _seen_by(tenant: Tenant, server: ServerView) -> ServerView:
    return replace(server, models=tuple(filter(tenant.may_use, server.models)))


def _get_and_head(path: str, endpoint: Endpoint, summary: str) -> list[Route]:
    return [Route(method, path, endpoint, summary) for method in ("GET", "HEAD")]


def _probe(passed: bool, body: dict[str, Any]) -> Response:
    return ApiJSONResponse(body) if passed else ApiJSONResponse(body, 503, _RETRY_AFTER)


def _sums(servers: Sequence[ServerView]) -> dict[str, int]:
    return {name: sum(getattr(server.load, name) for server in servers) for name in Load.__struct_fields__}


def _server_body(server: ServerView) -> dict[str, Any]:
    # Structs of the wire would be encoded as arrays.
    body = {field.name: getattr(server, field.name) for field in fields(server)}
    return {
        **body,
        "load": msgspec.structs.asdict(server.load),
        "limits": msgspec.structs.asdict(server.limits),
        "models": [_model_body(model) for model in server.models],
    }


def _model_body(model: ServedModel) -> dict[str, Any]:
    # The uri may be a path of the model server's machine: not shown, as in /v1/models.
    body = msgspec.structs.asdict(model)
    uri = body.pop("uri")
    return {**body, "aliases": [alias for alias in model.aliases if alias != uri]}
