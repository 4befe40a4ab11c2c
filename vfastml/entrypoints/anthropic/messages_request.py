"""The body of POST /v1/messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vfastml.engine.dispatch_requests import Constraint, SamplingParams, TextGenerationReq
from vfastml.entrypoints.anthropic.message_style import MessageStyle
from vfastml.entrypoints.anthropic.prompt_fields import PromptFields
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import MAX_STOP_STRINGS
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX, Text


class MessagesRequest(PromptFields):
    """A body that asks for the next message."""

    max_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)]
    """0 only reads the prompt, so that the prefix cache has it."""
    stop_sequences: Annotated[list[Text], AtMost(MAX_STOP_STRINGS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    stream: bool | None = None

    def to_work(self, request_id: str) -> TextGenerationReq:
        """What the engine takes."""
        chat = self.chat()
        return TextGenerationReq(
            request_id=request_id,
            model_uri=self.model,
            messages=chat,
            sampling=SamplingParams(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                stop=None if self.stop_sequences is None else tuple(self.stop_sequences),
            ),
            n=1,
            stream=bool(self.stream),
            constraint=self._constraint(),
            tool_use=self.tool_use(),
            template=self.template(chat),
            splits_reasoning=True,
        )

    def style(self) -> MessageStyle:
        """How the answer is worded."""
        shown = "nothing" if self.thinking is None else self.thinking.shown
        return MessageStyle(stop_sequences=self.stop_sequences or (), shown_thinking=shown)

    def _constraint(self) -> Constraint | None:
        if self.output_config is not None and self.output_config.format is not None:
            return self.output_config.format.to_wire("output_config.format")
        return None if self.output_format is None else self.output_format.to_wire("output_format")
