"""The body of POST /v1/responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfastml.engine.dispatch_requests import Constraint, TemplateOptions, TextGenerationReq, ToolUse
from vfastml.engine.text_parameters import MAX_LOGPROBS
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import (
    MAX_EFFORT_CHARS,
    MAX_INCLUDED,
    MAX_METADATA,
    MAX_METADATA_CHARS,
    MAX_METADATA_NAME_CHARS,
)
from vfastml.entrypoints.openai import unsupported_fields
from vfastml.entrypoints.openai.api_request import Name
from vfastml.entrypoints.openai.beam_fields import BeamFields
from vfastml.entrypoints.openai.constraint_fields import GuidedFields
from vfastml.entrypoints.openai.control_fields import ControlFields
from vfastml.entrypoints.openai.responses.chat_messages import chat_messages
from vfastml.entrypoints.openai.responses.format_fields import TextFields
from vfastml.entrypoints.openai.responses.function_tools import flat_tool_use
from vfastml.entrypoints.openai.responses.input_items import Input, Item
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX, SamplingFields, TokenCount
from vfastml.entrypoints.openai.template_fields import TemplateFields
from vfastml.entrypoints.openai.tool_fields import ToolFields
from vfastml.errors import InvalidRequestError

Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=MAX_METADATA_NAME_CHARS)],
        Annotated[str, Field(max_length=MAX_METADATA_CHARS)],
    ],
    AtMost(MAX_METADATA),
]

_LOGPROBS = "message.output_text.logprobs"
_ALL_OF_PROMPT_THAT_FITS = -1

_SENT_AS = {"messages": "input", "max_tokens": "max_output_tokens", "truncate_prompt_tokens": "truncation"}

Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""All but the first are about items that no answer has here, or has in plain."""


class ReasoningFields(BaseModel):
    """`summary` is not made: reasoning is answered whole."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    effort: Annotated[str, Field(max_length=MAX_EFFORT_CHARS)] | None = None


class ResponsesRequest(SamplingFields, GuidedFields, BeamFields, ToolFields, TemplateFields, ControlFields):
    """Lengths, tools and formats are named as the Responses API names them; what else the engine can do has the names
    of chat completions."""

    unsupported: ClassVar = unsupported_fields.RESPONSES

    input: Input
    instructions: str | None = None
    """A system message before the conversation, for this response only."""
    previous_response_id: Name | None = None
    """The conversation goes on from there."""
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    max_output_tokens: TokenCount | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    include: Annotated[list[Includable], AtMost(MAX_INCLUDED)] | None = None
    text: TextFields | None = None
    reasoning: ReasoningFields | None = None
    max_tool_calls: TokenCount | None = None
    """Of tools that the server runs itself, of which there are none."""
    truncation: Literal["auto", "disabled"] | None = None
    """`auto` leaves out the beginning of what is too long."""
    metadata: Metadata | None = None
    user: Name | None = None
    cache_salt: Name | None = None
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] | None = None
    """Requests with a smaller number go first."""

    @model_validator(mode="after")
    def _check_background(self) -> ResponsesRequest:
        if self.background and self.store is False:
            raise InvalidRequestError("'background' needs 'store': its answer is to be fetched.", param="background")
        return self

    def to_work(self, request_id: str, conversation: Sequence[Item] = ()) -> TextGenerationReq:
        """What the engine takes; `conversation` is what came before the input."""
        return TextGenerationReq(
            request_id=request_id,
            model_uri=self.model,
            messages=chat_messages([*conversation, *self.input], self.instructions),
            sampling=self.sampling(),
            n=1,
            beams=self.beams(None),
            constraint=self.constraint(),
            tool_use=self.tool_use(),
            template=self.template(),
            splits_reasoning=True,
            # In one delta, log probabilities of what was thought could not be told from those of what was said.
            stream=bool(self.stream or self.background) or self.num_logprobs() is not None,
            cache_salt=self.cache_salt or "",
            priority=self.priority or 0,
            deadline_s=self.deadline_s,
            truncate_prompt_tokens=_ALL_OF_PROMPT_THAT_FITS if self.truncation == "auto" else None,
        )

    def tool_use(self) -> ToolUse | None:
        """See ToolFields: their flat form."""
        return flat_tool_use(self.tools or (), self.tool_choice, self.parallel_tool_calls)

    def template(self) -> TemplateOptions:
        """See TemplateFields."""
        effort = None if self.reasoning is None else self.reasoning.effort
        return msgspec.structs.replace(super().template(), reasoning_effort=effort or self.reasoning_effort)

    def name_of(self, param: str | None) -> str | None:
        """What an error of the engine's is about, in this API's words."""
        if param == "structured_outputs" and self.format_constraint() is not None:
            return "text.format"
        return _SENT_AS.get(param or "", param)

    def most_tokens(self) -> int | None:
        """See SamplingFields."""
        return self.max_output_tokens

    def num_logprobs(self) -> int | None:
        """See SamplingFields. Alternatives that are asked for have something that they are alternatives of."""
        return self.top_logprobs or 0 if self.top_logprobs or _LOGPROBS in (self.include or ()) else None

    def format_constraint(self) -> Constraint | None:
        """See GuidedFields."""
        return None if self.text is None or self.text.format is None else self.text.format.to_wire()
