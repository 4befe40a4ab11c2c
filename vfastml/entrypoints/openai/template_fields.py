"""The fields of a body that say how its messages become a prompt."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from vfastml.engine.dispatch_requests import TemplateOptions
from vfastml.entrypoints.collection_bound import AtMost, FreeObject
from vfastml.entrypoints.limits import MAX_DOCUMENTS, MAX_EFFORT_CHARS, MAX_TEMPLATE_KWARGS
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.errors import InvalidRequestError


class TemplateFields(ApiRequest):
    """See TemplateOptions for what each field does."""

    chat_template_kwargs: Annotated[dict[str, Any], AtMost(MAX_TEMPLATE_KWARGS)] | None = None
    """For the model's chat template, which must know their names."""
    add_generation_prompt: bool | None = None
    """End the prompt with the beginning of an answer; default true, but false with `continue_final_message`."""
    continue_final_message: bool | None = None
    """The last message is the beginning of the answer."""
    documents: Annotated[list[FreeObject], AtMost(MAX_DOCUMENTS)] | None = None
    """For templates that know them."""
    reasoning_effort: Annotated[str, Field(max_length=MAX_EFFORT_CHARS)] | None = None
    """A hint, for templates that know it in some form."""

    @model_validator(mode="after")
    def _check_continuation(self) -> TemplateFields:
        if self.continue_final_message and self.add_generation_prompt:
            message = "'continue_final_message' and 'add_generation_prompt' contradict each other."
            raise InvalidRequestError(message, param="continue_final_message")
        return self

    def template(self) -> TemplateOptions:
        """What the engine takes."""
        continues = bool(self.continue_final_message)
        return TemplateOptions(
            kwargs=self.chat_template_kwargs or {},
            add_generation_prompt=not continues and self.add_generation_prompt is not False,
            continue_final_message=continues,
            documents=self.documents or None,
            reasoning_effort=self.reasoning_effort,
        )
