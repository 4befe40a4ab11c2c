"""What a span says of a dispatched request, in the words of OpenTelemetry's conventions for generative AI where they
have one. Numbers and names of ours only: no text of a client's or a model's, and not the name by which a client asks
for a model, but that under which it is served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.engine.request_observer import ObservedRequest

Attributes = dict[str, Any]

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed")


def operation(request: WorkReq) -> str:
    """What is asked for."""
    if isinstance(request, TextGenerationReq):
        return "chat" if request.messages is not None else "text_completion"
    return "tokenize" if isinstance(request, TokenizeReq) else type(request).__name__.removesuffix("Req").lower()


def asked(observed: ObservedRequest) -> Attributes:
    """From the beginning on."""
    request = observed.request
    known: Attributes = {
        "gen_ai.operation.name": operation(request),
        "gen_ai.provider.name": "vfastml",
        "gen_ai.response.id": observed.request_id,
    }
    if observed.tenant is not None:
        known["vfastml.key"] = observed.tenant.name
    return known | (_asked_of_text(request) if isinstance(request, TextGenerationReq) else {})


def answered(observed: ObservedRequest, finish_reasons: Iterable[str]) -> Attributes:
    """At the end: as much as there was of it."""
    known: Attributes = _where(observed)
    if isinstance(observed.request, TextGenerationReq):
        known |= _tokens(observed) | {"gen_ai.response.finish_reasons": list(finish_reasons)}
    if observed.timings is not None:
        known["gen_ai.response.time_to_first_chunk"] = observed.timings.first_token_s
        known["vfastml.preemptions"] = observed.timings.num_preemptions
    return known


def _asked_of_text(request: TextGenerationReq) -> Attributes:
    known: Attributes = {"gen_ai.request.stream": request.stream, **_sampling(request.sampling)}
    if request.n is not None:
        known["gen_ai.request.choice.count"] = request.n
    if request.beams is not None:
        known["vfastml.beam_width"] = request.beams.width
    return known


def _sampling(sampling: SamplingParams) -> Attributes:
    values = {name: getattr(sampling, name) for name in _SAMPLING}
    return {f"gen_ai.request.{name}": value for name, value in values.items() if value is not None}


def _where(observed: ObservedRequest) -> Attributes:
    known: Attributes = {}
    if observed.model is not None:
        known |= {"gen_ai.request.model": observed.model, "gen_ai.response.model": observed.model}
    if observed.endpoint is not None:
        address = urlsplit(observed.endpoint)
        known["server.address"] = address.hostname or observed.endpoint
        if address.hostname and address.port:
            known["server.port"] = address.port
    return known


def _tokens(observed: ObservedRequest) -> Attributes:
    usage = observed.usage_so_far
    counted = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    if observed.usage is not None:
        counted["cache_read.input_tokens"] = usage.cached_tokens
        counted["reasoning.output_tokens"] = usage.reasoning_tokens
    return {f"gen_ai.usage.{name}": number for name, number in counted.items()}
