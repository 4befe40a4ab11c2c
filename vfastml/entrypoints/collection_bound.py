"""How many elements a list or an object of a body may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from vfastml.entrypoints.limits import MAX_OBJECT_ENTRIES


@dataclass(frozen=True, slots=True)
class AtMost:
    """Annotates a list or dict of pydantic's. Its length is looked at before any element is, and in a list the first
    element that is wrong is the last that is looked at: pydantic would keep an error, of a kilobyte, for each."""

    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = cast("dict[str, Any]", handler(source)) | {"max_length": self.most}
        if schema["type"] == "list":
            schema["fail_fast"] = True
        return core_schema.no_info_before_validator_function(self.check, cast("CoreSchema", schema))

    def check(self, value: Any) -> Any:
        """The same value. Raises ValueError if it is too long; what is no collection is left to others."""
        if isinstance(value, list | dict) and len(value) > self.most:
            raise ValueError(f"there may be at most {self.most} entries")
        return value


FreeObject = Annotated[dict[str, Any], Field(max_length=MAX_OBJECT_ENTRIES)]
"""Whatever is in it, so that nothing can be wrong with that: a JSON schema, the arguments of a call."""
