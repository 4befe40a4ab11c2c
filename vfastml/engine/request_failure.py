"""What went wrong with one request, as its client is told."""

from __future__ import annotations

import logging

from vfastml.engine.dispatch_replies import Failed
from vfastml.errors import InternalServerError, InternalServerTooBusyError, VFastMLError

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "std::bad_alloc", "ALLOC_FAILED")
"""How torch and the libraries below it say it where they have no class for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the device had too little memory. torch's own class is known by its name: not every model
    server loads torch."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def failure(request_id: str, error: Exception, otherwise: str) -> Failed:
    """The terminal reply. An error of ours goes out as it is, too little memory as a reason to try again later; of
    anything else the client hears only the sentence `otherwise`, and the log all."""
    if not isinstance(error, VFastMLError):
        fields = {"request_id": request_id}
        logger.error("request %s failed; the others go on", request_id, exc_info=error, extra={"fields": fields})
        error = _as_ours(error, otherwise)
    return Failed.of(request_id, error)


def _as_ours(error: Exception, otherwise: str) -> VFastMLError:
    if is_out_of_memory(error):
        return InternalServerTooBusyError("There is too little memory for this request now.", retry_after_s=1.0)
    return InternalServerError(otherwise)
