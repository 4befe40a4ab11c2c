"""POST /v1/requests/{id}/cancel: ends a request for which another connection waits."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.limits import REQUEST_ID
from vfastml.entrypoints.root_path import route_path
from vfastml.entrypoints.routes import Route
from vfastml.errors import NotFoundError

_PATH = re.compile(r"/v1/(requests|responses)/[^/]+/cancel")


def is_cancel(scope: Scope) -> bool:
    """An HTTP request that ends another one, or a response in the background, if it finds it."""
    return scope["method"] == "POST" and _PATH.fullmatch(route_path(scope)) is not None


def cancel_route(engine: DispatchEngine) -> Route:
    """The built-in route."""

    async def cancel(request: Request) -> Response:
        name = request.path_params["id"]
        if not (REQUEST_ID.fullmatch(name) and await engine.cancel_by_name(name)):
            raise NotFoundError("No request of that id is open.")
        return ApiJSONResponse({"id": name, "cancelled": True})

    return Route("POST", "/v1/requests/{id}/cancel", cancel, "Cancel a request")
