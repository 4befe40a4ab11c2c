"""The fields of a body that say how its request is run, not what is answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vfastml.entrypoints.limits import MAX_DEADLINE_S
from vfastml.entrypoints.openai.api_request import ApiRequest


class ControlFields(ApiRequest):
    """Of OpenAI's APIs for text. Anthropic's has headers for the deadline and the timings."""

    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] | None = None
    """Seconds that it may wait and run; then it fails."""
    return_timings: bool | None = None
    """Say in the body how long it took."""
