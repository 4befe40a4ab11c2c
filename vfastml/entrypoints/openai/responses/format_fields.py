"""`text`: the form of an answer, as the Responses API has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfastml.engine.dispatch_requests import Constraint
from vfastml.entrypoints.collection_bound import FreeObject
from vfastml.entrypoints.openai.constraint_fields import schema_json
from vfastml.errors import InvalidRequestError

_SCHEMA = "text.format.schema"


class TextFormat(BaseModel):
    """Free text, any JSON object, or JSON of a schema, which holds whether `strict` or not."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Annotated[FreeObject | None, Field(alias="schema")] = None
    strict: bool | None = None
    description: str | None = None

    def to_wire(self) -> Constraint | None:
        """What the engine takes. Raises InvalidRequestError if there is no schema."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Constraint("json_object")
        if self.schema_ is None:
            raise InvalidRequestError("A format of the type 'json_schema' needs a 'schema'.", param=_SCHEMA)
        return Constraint("json_schema", schema_json(self.schema_, _SCHEMA))

    def told(self) -> dict[str, Any]:
        """As the response repeats it."""
        fields = {"type": self.type, "name": self.name, "description": self.description}
        told = {**fields, "schema": self.schema_, "strict": self.strict}
        return {name: value for name, value in told.items() if value is not None}


class TextFields(BaseModel):
    """`verbosity` and other hints are not taken up."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    format: TextFormat | None = None
