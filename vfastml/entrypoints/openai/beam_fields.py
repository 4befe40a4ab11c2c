"""The fields of a body that ask for beam search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vfastml.engine.dispatch_requests import BeamSearch
from vfastml.entrypoints.limits import MAX_CHOICES
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.errors import InvalidRequestError

_NEUTRAL = {"beam_width": (1,), "num_beam_groups": (1,), "diversity_penalty": (0.0,), "length_penalty": (1.0,)}
"""Fields that mean nothing without beam search, and their values that ask for nothing."""


class BeamFields(ApiRequest):
    """See BeamSearch for what each field does."""

    use_beam_search: bool | None = None
    beam_width: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """As many as `n` where it is left out."""
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_beam_groups: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    diversity_penalty: Annotated[float, Field(ge=0, le=100)] | None = None

    @model_validator(mode="after")
    def _check_use(self) -> BeamFields:
        if self.use_beam_search:
            return self
        for name, neutral in _NEUTRAL.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise InvalidRequestError(f"'{name}' is for beam search: set 'use_beam_search'.", param=name)
        if self.early_stopping:
            message = "'early_stopping' is for beam search: set 'use_beam_search'."
            raise InvalidRequestError(message, param="early_stopping")
        return self

    def beams(self, n: int | None) -> BeamSearch | None:
        """What the engine takes; None for a body that does not ask for it. Raises InvalidRequestError for one beam."""
        if not self.use_beam_search:
            return None
        width = self.beam_width or n or 1
        if width < 2:
            message = "Beam search needs at least 2 beams: set 'beam_width'."
            raise InvalidRequestError(message, param="beam_width")
        return BeamSearch(
            width=width,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            early_stopping=self.early_stopping or False,
            groups=self.num_beam_groups or 1,
            diversity_penalty=self.diversity_penalty or 0.0,
        )
