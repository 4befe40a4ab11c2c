"""Built-in routes as values, and how they get into an app: only where the application has not put its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, a method and what answers them. `body` is the model that documents the JSON body."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    body: type[BaseModel] | None = None


def mount(app: FastAPI, routes: Iterable[Route]) -> None:
    """Add each route whose method and path are still free."""
    taken = {(method, path) for path, methods in _mounted(app) for method in methods}
    for route in routes:
        if (route.method, route.path) not in taken:
            app.add_api_route(
                route.path,
                route.endpoint,
                methods=[route.method],
                summary=route.summary,
                response_class=Response,
                openapi_extra=_documented(route.body) if route.body else None,
                # HEAD is GET without the body: listed once is enough.
                include_in_schema=route.method != "HEAD",
            )


def _mounted(app: FastAPI) -> Iterable[tuple[str, set[str]]]:
    for route in app.routes:
        yield getattr(route, "path", ""), getattr(route, "methods", None) or set()


@cache  # a tenth of a second, for the same few models each time
def _documented(body: type[BaseModel]) -> dict[str, Any]:
    schema = body.model_json_schema(mode="validation")
    inlined = _without_references(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined}}}}


def _without_references(node: Any, definitions: dict[str, Any]) -> Any:
    """References point into the schema's own root, which it loses inside an OpenAPI document."""
    if isinstance(node, list):
        return [_without_references(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _without_references(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    return {key: _without_references(value, definitions) for key, value in node.items()}
