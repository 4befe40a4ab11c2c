"""What all bodies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfastml.entrypoints.limits import MAX_NAME_CHARS
from vfastml.entrypoints.openai.unsupported_fields import NeutralValues, refuse_unsupported

Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


class ApiRequest(BaseModel):
    """A body. Strict: "5" is not a number, true is not one either. Unknown fields are ignored, except those of
    `unsupported`, which raise UnsupportedError at a value that asks for something. Null means "not sent" in every
    field."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)

    unsupported: ClassVar[NeutralValues] = {}

    model: Name | None = None
    """A served name; may be left out when only one model is served."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        if isinstance(body, Mapping):
            refuse_unsupported(body, cls.unsupported)
        return body
