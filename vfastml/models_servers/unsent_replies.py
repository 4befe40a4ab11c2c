"""What a model server has to say and has not yet sent, gateway by gateway."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import (
    Accepted,
    CancelResult,
    Delta,
    Detokenized,
    Failed,
    Finished,
    Goaway,
    Hello,
    Output,
    Reply,
    Status,
    StepReply,
    Tokenized,
)
from vfastml.engine.merged_deltas import merged
from vfastml.errors import InternalServerError

logger = logging.getLogger(__name__)

Answer = Tokenized | Detokenized
"""What `prepare` may answer by itself, without the model."""

Immediate = Accepted | Answer | CancelResult
"""What the link says by itself, at once."""

WorkReply = Delta | Finished | Failed | Output
"""What the model's thread says."""

_R = TypeVar("_R", bound=Immediate | WorkReply)


@dataclass(slots=True)
class Unsent:
    """What one gateway has to be told: first the messages, then one StepReply of all the rest. A gateway that does not
    keep up gets fewer and longer deltas."""

    messages: deque[Immediate | Output] = field(default_factory=deque)
    deltas: dict[tuple[str, int], Delta] = field(default_factory=dict)
    ended: list[Finished | Failed] = field(default_factory=list)

    def add(self, reply: Immediate | WorkReply) -> None:
        """Behind what is there."""
        if isinstance(reply, Delta):
            place = (reply.request_id, reply.index)
            earlier = self.deltas.get(place)
            self.deltas[place] = reply if earlier is None else merged((earlier, reply))
        elif isinstance(reply, Finished | Failed):
            self.ended.append(reply)
        else:
            self.messages.append(reply)

    def forget(self, request_id: str) -> None:
        """Nobody waits for its deltas any more, nor for its end."""
        self.deltas = {place: delta for place, delta in self.deltas.items() if delta.request_id != request_id}
        self.ended = [end for end in self.ended if end.request_id != request_id]

    def unsendable(self) -> list[str]:
        """The requests to blame when the StepReply cannot travel: those with a delta that could not even do so alone;
        if there is none, the one with the longest delta; if there are no deltas, the one that ended first."""
        if not self.deltas:
            return [self.ended[0].request_id]
        alone = [delta.request_id for delta in self.deltas.values() if sendable(delta) is not delta]
        return list(dict.fromkeys(alone)) or [max(self.deltas.values(), key=lambda delta: len(delta.text)).request_id]

    def next_message(self) -> Immediate | Output | StepReply | None:
        """To be sent now; None when all is told."""
        if self.messages:
            return self.messages[0]
        return StepReply(list(self.deltas.values()), self.ended) if self.deltas or self.ended else None

    def sent(self, message: Immediate | Output | StepReply) -> None:
        """The message that `next_message` has given is on its way."""
        if isinstance(message, StepReply):
            self.deltas, self.ended = {}, []
        else:
            self.messages.popleft()


def frame_of(reply: Reply) -> bytes | None:
    """What is sent; None if it cannot travel."""
    try:
        frame = wire.encode_reply(reply)
    except Exception as error:  # whatever an author's value raises
        logger.error("a %s cannot be encoded", type(reply).__name__, exc_info=error, extra=_about(reply))
        return None
    if len(frame) > wire.MAX_MESSAGE_BYTES:
        logger.error(
            "a %s of %d bytes is too large for the wire", type(reply).__name__, len(frame), extra=_about(reply)
        )
        return None
    return frame


def _about(reply: Reply) -> dict[str, Any]:
    """Of a log line: which request it is about, where it is a single one."""
    parts = [*reply.deltas, *reply.ended] if isinstance(reply, StepReply) else [reply]
    ids = {part.request_id for part in parts if not isinstance(part, Hello | Status | Goaway)}
    return {"fields": {"request_id": ids.pop()} if len(ids) == 1 else {}}


def sendable(reply: _R) -> _R | Failed:
    """The reply, or a failure in the place of one that cannot travel: it must not hold up the others."""
    if frame_of(StepReply([reply]) if isinstance(reply, Delta) else reply) is not None:
        return reply
    return Failed.of(reply.request_id, InternalServerError("The answer could not be sent."))
