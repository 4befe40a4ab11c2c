"""What the bodies of messages and of counting their tokens share: all that the prompt is made of."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from vfastml.engine.dispatch_requests import TemplateOptions, ToolUse
from vfastml.entrypoints.anthropic.content_blocks import TextContent
from vfastml.entrypoints.anthropic.conversation import Turn, chat_messages
from vfastml.entrypoints.anthropic.output_fields import OutputConfig, OutputFormat, Thinking
from vfastml.entrypoints.anthropic.tools import ToolChoice, Tools, offered_tools
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import MAX_MESSAGES
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.entrypoints.openai.unsupported_fields import NeutralValues
from vfastml.errors import InvalidRequestError

_USUAL_EFFORT = "medium"


class PromptFields(ApiRequest):
    """A body that has a conversation."""

    unsupported: ClassVar[NeutralValues] = {
        "compaction": (),
        "container": (),
        "mcp_servers": ([],),
        "thread": (),
    }

    messages: Annotated[list[Turn], Field(min_length=1), AtMost(MAX_MESSAGES)]
    system: TextContent | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older place of `output_config.format`."""

    @model_validator(mode="after")
    def _check_results(self) -> PromptFields:
        if any(block.type == "tool_use" for block in self.messages[-1].content):
            message = "'messages' ends with a 'tool_use' block: its 'tool_result' has to come next."
            raise InvalidRequestError(message, param="messages")
        return self

    def chat(self) -> list[dict[str, Any]]:
        """The conversation as chat messages. Raises InvalidRequestError if none is left."""
        chat = chat_messages(self.system, self.messages)
        if not chat:
            raise InvalidRequestError("'messages' has nothing to go on with.", param="messages")
        return chat

    def tool_use(self) -> ToolUse | None:
        """What the engine takes. Raises InvalidRequestError."""
        return offered_tools(self.tools, self.tool_choice)

    def template(self, chat: list[dict[str, Any]]) -> TemplateOptions:
        """How it is rendered: a last message of the assistant's is gone on with."""
        goes_on = chat[-1]["role"] == "assistant"
        return TemplateOptions(
            add_generation_prompt=not goes_on, continue_final_message=goes_on, reasoning_effort=self._effort()
        )

    def _effort(self) -> str | None:
        asked = None if self.output_config is None else self.output_config.effort
        if self.thinking is None:
            return asked
        return "none" if self.thinking.type == "disabled" else asked or _USUAL_EFFORT
