"""What the I/O thread of a model server hands to the model's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vfastml.engine.dispatch_replies import Accepted
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.models_servers.unsent_replies import Answer


class Work(Protocol):
    """A checked request on its way to the model's thread."""

    @property
    def request_id(self) -> str:
        """Of the request."""

    def accepted(self) -> Accepted:
        """The first reply."""


@runtime_checkable
class SizedWork(Protocol):
    """Work of which many tokens may not wait at a time."""

    @property
    def num_tokens(self) -> int:
        """That it may come to: its prompt's, and the most that each of its choices may get."""


Prepare = Callable[[WorkReq], Work | Answer]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Inbox: stop working on that request."""

    request_id: str


class Wake:
    """Inbox: look around, something else has changed."""


InboxItem = Work | Cancelled | Wake
