"""GET /v1/models and GET /v1/models/{id}."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import ServedModel
from vfastml.engine.server_table import ServerView
from vfastml.engine.tenant import TENANT
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.routes import Route
from vfastml.errors import ModelNotFoundError


def models_routes(engine: DispatchEngine) -> list[Route]:
    """The built-in routes. A caller is shown the models that it may use."""

    async def list_models(_: Request) -> Response:
        return ApiJSONResponse({"object": "list", "data": list(_by_name(engine).values())})

    async def get_model(request: Request) -> Response:
        name = request.path_params["id"]
        for model in _allowed(engine):
            if name in (model.id, model.uri, *model.aliases):
                return ApiJSONResponse(_model_body(name, model, _server_of(model, engine)))
        raise ModelNotFoundError("There is no model of that name.", param="model")

    return [
        Route("GET", "/v1/models", list_models, "List the models"),
        Route("GET", "/v1/models/{id:path}", get_model, "Describe a model"),
    ]


def _allowed(engine: DispatchEngine) -> list[ServedModel]:
    tenant = TENANT.get()
    return [model for model in engine.models() if tenant is None or tenant.may_use(model)]


def _by_name(engine: DispatchEngine) -> dict[str, dict[str, Any]]:
    """The names to show; of servers that serve the same name, the first one's model."""
    named: dict[str, dict[str, Any]] = {}
    for model in _allowed(engine):
        server = _server_of(model, engine)
        for name in _names(model):
            named.setdefault(name, _model_body(name, model, server))
    return named


def _server_of(model: ServedModel, engine: DispatchEngine) -> ServerView:
    """The first that serves it, lost ones included: there is one, as models are known from servers alone."""
    return next(server for server in engine.servers() if model.id in {served.id for served in server.models})


def _names(model: ServedModel) -> Iterator[str]:
    # The uri is a name too, but it may be a path of the model server's machine: accepted, and not shown.
    yield model.id
    yield from (alias for alias in model.aliases if alias != model.uri)


def _model_body(name: str, model: ServedModel, server: ServerView) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "vfastml",
        "root": model.id,
        "parent": None,
        "max_model_len": model.max_model_len,
        "vfastml": _server_body(server),
    }


def _server_body(server: ServerView) -> dict[str, Any]:
    limits = server.limits
    sizes = {
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "kv_cache_tokens": limits.num_blocks * limits.block_size,
        "tpot_ms": limits.tpot_ms,
        "decode_tokens_per_s": limits.decode_tokens_per_s,
        "prefill_tokens_per_s": limits.prefill_tokens_per_s,
    }
    about = {"decoder": server.decoder, "device": server.device, "dtype": server.dtype}
    # Zero and the empty string stand on the wire for what does not apply or was not measured.
    return {name: value or None for name, value in {**about, **sizes}.items()} | {"measured": limits.measured}
