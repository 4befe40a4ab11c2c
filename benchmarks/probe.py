"""Before measuring: what the server is, what it accepts, and how it counts words."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from benchmarks.completion import LENGTH_WAYS, Asking, Usage, Whole, error_of, whole_completion
from benchmarks.errors import BenchmarkError
from benchmarks.flags import recorded_text
from benchmarks.http_exchange import OK, Answer, ExchangeError, ServerAddress, exchange
from benchmarks.prompts import LengthFit, Prompt, random_text

_REFUSES_FIELDS = (400, 422)
_NO_ACCESS = (401, 403)
_GET_S = 30.0
_PROBE_WORDS = (16, 80)
_VERSION_PATHS = ("/version", "/info", "/props")
"""vLLM's and ours, TGI's, llama.cpp's."""
_VERSION_FIELDS = ("version", "build_info", "model_id", "docker_label", "sha")


@dataclass(frozen=True)
class Probed:
    """What was found out."""

    asking: Asking
    fit: LengthFit
    facts: dict[str, Any]
    """For the record: header, version, owner and name of the model, the way to an exact length."""


async def probe(
    server: ServerAddress, endpoint: str, model: str | None, timeout_s: float, rng: random.Random
) -> Probed:
    """Raises BenchmarkError, which says what to do, where measuring would be in vain."""
    server = await server.reach()
    listing = await _get(server, "/v1/models")
    if listing.status in _NO_ACCESS:
        raise BenchmarkError(f"The server wants a key ({error_of(listing)}); give one with --api-key.")
    models = _models(listing)
    if model is None and not models:
        raise BenchmarkError(f"The server lists no models ({listing.status} for /v1/models); name one with --model.")
    asking = Asking(server, endpoint, model or models[0]["id"], LENGTH_WAYS[0], timeout_s)
    asking, first = await _accepted(asking, Prompt(random_text(_PROBE_WORDS[0], rng), 2))
    second = await _ask(asking, Prompt(random_text(_PROBE_WORDS[1], rng), 2))
    facts = {"model": recorded_text(asking.model), "owned_by": _owner(models, asking.model)}
    facts["length_way"] = asking.length_way
    facts |= {"server_header": listing.headers.get("server")} | await _version(server)
    return Probed(asking, _fit(first, second), facts)


def usage_of(answer: Answer) -> Usage | None:
    """Of an answer that was not streamed; None if it has none."""
    try:
        return msgspec.json.decode(answer.body, type=Whole).usage if answer.status == OK else None
    except msgspec.DecodeError:
        return None


async def _accepted(asking: Asking, prompt: Prompt) -> tuple[Asking, Answer]:
    """The first way to an exact length that the server does not refuse."""
    for way in LENGTH_WAYS:
        asking = replace(asking, length_way=way)
        answer = await _ask(asking, prompt)
        if answer.status not in _REFUSES_FIELDS:
            break
    if answer.status in _NO_ACCESS:
        raise BenchmarkError(f"The server refuses the key ({error_of(answer)}); give another with --api-key.")
    if answer.status != OK:
        raise BenchmarkError(
            f"The server refuses a short request to {asking.path} for the model {asking.model!r}: {error_of(answer)}; "
            "see --model and --endpoint."
        )
    return asking, answer


async def _ask(asking: Asking, prompt: Prompt) -> Answer:
    try:
        return await whole_completion(asking, prompt)
    except ExchangeError as error:
        raise BenchmarkError(f"The server does not answer a short request to {asking.path}: {error}.") from error


async def _get(server: ServerAddress, path: str) -> Answer:
    try:
        async with asyncio.timeout(_GET_S):
            return await exchange(server, "GET", path)
    except TimeoutError:
        raise BenchmarkError(f"{server.url} does not answer GET {path} within {_GET_S:g} s.") from None
    except ExchangeError as error:
        raise BenchmarkError(f"{server.url} does not speak HTTP as expected: {error}.") from error


async def _version(server: ServerAddress) -> dict[str, Any]:
    for path in _VERSION_PATHS:
        answer = await _get(server, path)
        body = _json_object(answer) if answer.status == OK else {}
        if found := {name: body[name] for name in _VERSION_FIELDS if isinstance(body.get(name), str)}:
            return found
    return {}


def _models(listing: Answer) -> list[dict[str, Any]]:
    data = _json_object(listing).get("data")
    return [each for each in data if isinstance(each, dict) and each.get("id")] if isinstance(data, list) else []


def _owner(models: list[dict[str, Any]], model: str) -> str | None:
    owners = [each.get("owned_by") for each in models if each["id"] == model]
    return owners[0] if owners else None


def _json_object(answer: Answer) -> dict[str, Any]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _fit(first: Answer, second: Answer) -> LengthFit:
    counts = [usage.prompt_tokens if (usage := usage_of(answer)) else None for answer in (first, second)]
    if counts[0] is None or counts[1] is None:
        return LengthFit()
    return LengthFit.through((_PROBE_WORDS[0], counts[0]), (_PROBE_WORDS[1], counts[1]))
