"""What a client hears of an error."""

from __future__ import annotations

import logging

import pytest
import torch

from vfastml.engine.dispatch_replies import Failed
from vfastml.engine.request_failure import failure, is_out_of_memory
from vfastml.errors import InvalidRequestError


def torchs_own() -> Exception:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("std::bad_alloc"),
        torchs_own(),
    ],
)
def test_too_little_memory(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert is_out_of_memory(error)
    told = failure("a", error, "It broke.")
    assert (told.request_id, told.kind, told.retry_after_s) == ("a", "InternalServerTooBusyError", 1.0)
    assert "GiB" not in told.message
    assert "request a failed" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("/secret is broken"), ValueError("out of memory"), OSError(12, "x")])
def test_anything_else_is_our_fault_and_told_in_one_sentence(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert failure("a", error, "It broke.") == Failed("a", "InternalServerError", "It broke.", None, "internal_error")


def test_error_of_ours_goes_out_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = InvalidRequestError("Not a number.", param="inputs", code="nan")
    assert failure("a", error, "It broke.") == Failed("a", "InvalidRequestError", "Not a number.", "inputs", "nan")
    assert not caplog.text
