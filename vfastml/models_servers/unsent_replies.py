"""What a model server has to say and has not yet sent, gateway by gateway."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from vfastml.engine import wire
from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Detokenized,
    Failed,
    Finished,
    Output,
    StepReply,
    Tokenized,
)
from vfastml.errors import InternalServerError

logger = logging.getLogger(__name__)

Answer = Tokenized | Detokenized
"""What `prepare` may answer by itself, without the model."""

WorkReply = Delta | Finished | Failed | Output
"""What the model's thread says."""

_R = TypeVar("_R", bound=Accepted | Answer | WorkReply)


@dataclass(slots=True)
class Unsent:
    """What one gateway has to be told: first the messages, then one StepReply of all the rest. A gateway that does not
    keep up gets fewer and longer deltas."""

    messages: deque[Accepted | Answer | Output] = field(default_factory=deque)
    deltas: dict[tuple[str, int], Delta] = field(default_factory=dict)
    ended: list[Finished | Failed] = field(default_factory=list)

    def add(self, reply: Accepted | Answer | WorkReply) -> None:
        """Behind what is there."""
        if isinstance(reply, Delta):
            place = (reply.request_id, reply.index)
            earlier = self.deltas.get(place)
            self.deltas[place] = reply if earlier is None else _merged(earlier, reply)
        elif isinstance(reply, Finished | Failed):
            self.ended.append(reply)
        else:
            self.messages.append(reply)

    def forget_deltas(self, request_id: str) -> None:
        """Nobody waits for them any more."""
        self.deltas = {place: delta for place, delta in self.deltas.items() if delta.request_id != request_id}

    def next_message(self) -> Accepted | Answer | Output | StepReply | None:
        """To be sent now; None when all is told."""
        if self.messages:
            return self.messages[0]
        return StepReply(list(self.deltas.values()), self.ended) if self.deltas or self.ended else None

    def sent(self, message: Accepted | Answer | Output | StepReply) -> None:
        """The message that `next_message` has given is on its way."""
        if isinstance(message, StepReply):
            self.deltas, self.ended = {}, []
        else:
            self.messages.popleft()


def sendable(reply: _R) -> _R | Failed:
    """The reply, or a failure in the place of one that cannot travel: it must not hold up the others."""
    try:
        frame = wire.encode_reply(StepReply([reply]) if isinstance(reply, Delta) else reply)
        if len(frame) <= wire.MAX_MESSAGE_BYTES:
            return reply
        logger.error("a %s of %d bytes is too large for the wire", type(reply).__name__, len(frame))
    except Exception as error:  # whatever an author's value raises
        logger.error("a %s cannot be encoded", type(reply).__name__, exc_info=error)
    return Failed.of(reply.request_id, InternalServerError("The answer could not be sent."))


def _merged(earlier: Delta, later: Delta) -> Delta:
    token_ids = None if later.token_ids is None else [*(earlier.token_ids or []), *later.token_ids]
    scores = None if later.scores is None else [*(earlier.scores or []), *later.scores]
    return msgspec.structs.replace(later, text=earlier.text + later.text, token_ids=token_ids, scores=scores)
