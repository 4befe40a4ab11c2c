"""The fields of a body that say how the model goes about its answer: `thinking`, `output_config`, `output_format`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vfastml.engine.dispatch_requests import Constraint
from vfastml.entrypoints.anthropic.content_blocks import Block
from vfastml.entrypoints.collection_bound import FreeObject
from vfastml.entrypoints.openai.constraint_fields import schema_json

ShownThinking = Literal["whole", "empty", "nothing"]
"""What a client gets to see of what the model thinks: a block, a block without its text, or no block."""


class Thinking(Block):
    """Whether the model thinks before it answers, where it can be told, and whether that is shown."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    """Not kept: `max_tokens` bounds thoughts and answer together."""
    display: Literal["summarized", "omitted"] | None = None

    @property
    def shown(self) -> ShownThinking:
        if self.type == "disabled":
            return "nothing"
        return "empty" if self.display == "omitted" else "whole"


class OutputFormat(Block):
    """JSON of a schema."""

    type: Literal["json_schema"]
    schema_: Annotated[FreeObject, Field(alias="schema")]

    def to_wire(self, param: str) -> Constraint:
        """What the engine takes. Raises InvalidRequestError, about the field `param`."""
        return Constraint("json_schema", schema_json(self.schema_, param))


class OutputConfig(Block):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None
