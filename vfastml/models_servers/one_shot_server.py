"""Models that map a list of inputs to a list of outputs: requests are gathered into batches for `forward`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from vfastml.engine.dispatch_replies import Load, Output
from vfastml.engine.dispatch_requests import ImageToImageReq, OneShotReq, WorkReq
from vfastml.engine.request_failure import failure
from vfastml.errors import InternalServerError, UnsupportedError
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.model_server import ModelServer
from vfastml.models_servers.share_line import OneShotWork, ShareLine
from vfastml.models_servers.unsent_replies import WorkReply

_FAILED = "The model could not process this input."


class OneShotModelServer(ModelServer):
    """Subclasses define `load(self)` and `forward(self, inputs: list) -> list`, and nothing else.

    An input is what a OneShotReq carries; for an ImageToImageReq it is the dict `{"images": [...], "forward_params":
    {...}}`. A batch runs when `max_batch_size` inputs wait, or when the first has waited for `max_wait_ms`; where more
    wait, callers with different API keys have equal parts of it, by their weights. `device` is where torch should
    compute.

    The constructor raises ValueError for a batch size below 1.
    """

    def __init__(self, *args: Any, max_batch_size: int = 8, max_wait_ms: float = 5.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if max_batch_size < 1:
            raise ValueError("max_batch_size must be at least 1")
        self.max_batch_size = max_batch_size
        self.max_wait_ms = max_wait_ms
        self._waiting = ShareLine()
        self._alone: OrderedDict[str, OneShotWork] = OrderedDict()
        """Those of a batch that has failed: now each is one by itself, before all others."""

    @cached_property
    def device(self) -> str:
        """`model_device` as torch takes it: `auto` is `cuda:0`, or `cpu` if there is no GPU. Loads torch on first use;
        `load` may as well set it.

        Raises InvalidRequestError for a device that is not there.
        """
        # Not every such server computes with torch.
        from vfastml.text_engine.device import settle_device

        return str(settle_device(self.model_device))

    def forward(self, inputs: list[Any]) -> list[Any]:
        """One output for each input, in order; both are plain msgpack values. An error of vfastml.errors refuses the
        input that caused it. A batch that raises, or finds too little memory, is tried again one input at a time. A
        call that takes longer than `max_step_s`, here or at a gateway, counts as hung, and ends the process."""
        raise TypeError(f"{type(self).__name__} must define forward()")

    def prepare(self, request: WorkReq) -> OneShotWork:
        """See ModelServer."""
        if isinstance(request, OneShotReq):
            return OneShotWork(request.request_id, request.inputs, request.share, request.share_weight)
        if isinstance(request, ImageToImageReq):
            return OneShotWork(request.request_id, _image_inputs(request), request.share, request.share_weight)
        raise UnsupportedError(f"This model does not answer a {type(request).__name__}.", param="model")

    def accept(self, work: Work) -> None:
        """See ModelServer."""
        assert isinstance(work, OneShotWork)
        self._waiting.add(work)

    def cancel(self, request_id: str) -> None:
        """See ModelServer."""
        if not self._waiting.remove(request_id):
            self._alone.pop(request_id, None)

    def due_in_s(self) -> float | None:
        """See ModelServer."""
        if self._alone or len(self._waiting) >= self.max_batch_size:
            return 0
        if not self._waiting:
            return None
        return max(0.0, self._waiting.arrived_s + self.max_wait_ms / 1000 - time.monotonic())

    def step(self) -> Iterable[WorkReply]:
        """See ModelServer. Calls `forward` once: what it takes is what the gateways see as the age of the step."""
        batch = self._next_batch()
        try:
            outputs = self.forward([work.inputs for work in batch])
            if len(outputs) != len(batch):
                raise InternalServerError("The model answered with another number of outputs.")
        except Exception as error:
            if len(batch) == 1:
                return [failure(batch[0].request_id, error, _FAILED)]
            self._alone.update((work.request_id, work) for work in batch)  # one input may have spoilt it for all
            return []
        return [_output(work.request_id, output) for work, output in zip(batch, outputs, strict=True)]

    def current_load(self) -> Load:
        """See ModelServer."""
        return Load(waiting=len(self._waiting) + len(self._alone))

    def device_and_dtype(self) -> tuple[str, str]:
        """See ModelServer. `auto` stays as it is where `load` has not asked for `device`."""
        return str(self.__dict__.get("device", self.model_device)), ""

    def _next_batch(self) -> list[OneShotWork]:
        if self._alone:
            return [self._alone.popitem(last=False)[1]]
        return [self._waiting.pop() for _ in range(min(self.max_batch_size, len(self._waiting)))]


def _image_inputs(request: ImageToImageReq) -> dict[str, Any]:
    if request.model_adapter_uri is not None:
        raise UnsupportedError("This model has no adapters.", param="model_adapter_uri")
    return {"images": request.images, "forward_params": request.forward_params or {}}


def _output(request_id: str, output: Any) -> WorkReply:
    """Encoded here, while the model's thread has the value: the author's next batch may change it."""
    try:
        return Output(request_id, msgspec.Raw(msgspec.msgpack.encode(output)))
    except Exception as error:  # whatever an author's value raises
        return failure(request_id, error, _FAILED)
