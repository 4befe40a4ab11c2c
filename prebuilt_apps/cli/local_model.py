"""A model in this process, for a conversation without a service."""

from __future__ import annotations

from collections.abc import Iterator

from prebuilt_apps.cli.conversation import Answer
from prebuilt_apps.cli.service_client import Message
from prebuilt_apps.cli.service_error import ServiceError
from prebuilt_apps.extras import import_part
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import VFastMLError
from vfastml.model_store import ModelStoreError


def answer_of_local_model(uri: str, temperature: float | None, max_tokens: int | None, prog: str) -> Answer:
    """Loads the model, which takes seconds. Raises ServiceError if that fails, as the answers do; leaves by SystemExit
    when torch is not installed."""
    # The engine says how OpenMP is to spin, which torch reads once, when it is imported.
    needs = ("vfastml.text_engine", "torch")
    llm_class = import_part("vfastml.llm", extra="model", prog=prog, needs=needs).LLM
    try:
        llm = llm_class(uri)
    except (VFastMLError, ModelStoreError) as error:
        raise ServiceError(str(error)) from error
    except Exception as error:  # whatever a library raises at a model that it cannot read
        raise ServiceError(f"{uri} cannot be loaded ({type(error).__name__}: {error}): choose another one.") from error
    params = SamplingParams(temperature=temperature, max_tokens=max_tokens)

    def answer(messages: list[Message]) -> Iterator[str]:
        try:
            yield from llm.stream(messages, params)
        except VFastMLError as error:
            raise ServiceError(error.message) from error

    return answer
