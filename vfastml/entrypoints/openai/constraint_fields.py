"""The fields of a body that say what the text must be: OpenAI's `response_format`, vLLM's `structured_outputs` and its
older `guided_*`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfastml.engine.dispatch_requests import Constraint, ConstraintKind
from vfastml.entrypoints.collection_bound import AtMost, FreeObject
from vfastml.entrypoints.limits import MAX_CONSTRAINT_CHOICES, MAX_STRUCTURAL_TAGS
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.errors import InvalidRequestError

Choices = Annotated[list[str], AtMost(MAX_CONSTRAINT_CHOICES)]


class JsonSchemaFormat(BaseModel):
    """A schema and its name, which is not used. It holds whether `strict` or not."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    name: str | None = None
    schema_: Annotated[FreeObject | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """Free text, any JSON object, or JSON of a schema."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    type: Literal["text", "json_object", "json_schema", "structural_tag"] | None = None
    json_schema: JsonSchemaFormat | None = None
    structures: Annotated[list[FreeObject], AtMost(MAX_STRUCTURAL_TAGS)] | None = None
    """With `structural_tag`: each with a `begin`, a `schema` and an `end`."""
    triggers: Annotated[list[str], AtMost(MAX_STRUCTURAL_TAGS)] | None = None
    """With `structural_tag`: what a `begin` begins with."""

    def to_wire(self) -> Constraint | None:
        """What the engine takes. Raises InvalidRequestError if a part is missing."""
        if self.type == "json_object":
            return Constraint("json_object")
        if self.type == "structural_tag":
            return Constraint("structural_tag", schema_json({"structures": self.structures, "triggers": self.triggers}))
        if self.type != "json_schema":
            return None
        if self.json_schema is None or self.json_schema.schema_ is None:
            message = "'response_format' of the type 'json_schema' needs a 'schema' in its 'json_schema'."
            raise InvalidRequestError(message, param="response_format")
        return Constraint("json_schema", schema_json(self.json_schema.schema_))


class StructuredOutputs(BaseModel):
    """One of these."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    json_: Annotated[FreeObject | str | None, Field(alias="json")] = None
    """A JSON schema, or one as text."""
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    """EBNF, or Lark's form."""
    json_object: bool | None = None
    structural_tag: FreeObject | str | None = None
    disable_any_whitespace: bool | None = None
    """There is at most one space between two tokens of JSON in any case."""
    disable_fallback: bool | None = None
    """There is none."""

    def to_wire(self) -> list[Constraint]:
        """What the engine takes, of all that are given."""
        found: dict[ConstraintKind, str | None] = {
            "json_schema": _text(self.json_),
            "regex": self.regex,
            "choice": _text(self.choice),
            "grammar": self.grammar,
            "structural_tag": _text(self.structural_tag),
        }
        given = [Constraint(kind, text) for kind, text in found.items() if text is not None]
        return [*given, Constraint("json_object")] if self.json_object else given


class GuidedFields(ApiRequest):
    """vLLM's fields. They, and the format that the API itself knows, may ask for one constraint in all."""

    structured_outputs: StructuredOutputs | None = None
    guided_json: FreeObject | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None

    def format_constraint(self) -> Constraint | None:
        """What the API's own format asks for. Raises InvalidRequestError if it lacks something."""
        raise NotImplementedError

    def constraint(self) -> Constraint | None:
        """What the engine takes. Raises InvalidRequestError for more than one."""
        formatted = self.format_constraint()
        older = StructuredOutputs.model_validate(
            {
                "json": self.guided_json or None,
                "regex": self.guided_regex or None,
                "choice": self.guided_choice or None,
                "grammar": self.guided_grammar or None,
            }
        )
        structured = [] if self.structured_outputs is None else self.structured_outputs.to_wire()
        found = [*([formatted] if formatted else []), *structured, *older.to_wire()]
        if len(found) > 1:
            message = "A text has one constraint: send either a format or 'structured_outputs', with one kind."
            raise InvalidRequestError(message, param="structured_outputs")
        return found[0] if found else None


class ConstraintFields(GuidedFields):
    """With the format as chat and completions have it."""

    response_format: ResponseFormat | None = None

    def format_constraint(self) -> Constraint | None:
        """See GuidedFields."""
        return None if self.response_format is None else self.response_format.to_wire()


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else schema_json(value)


def schema_json(value: Any, param: str = "response_format") -> str:
    """As the engine takes it. Raises InvalidRequestError for what is nested too deep."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise InvalidRequestError(f"The schema in '{param}' is nested too deep.", param=param) from error
