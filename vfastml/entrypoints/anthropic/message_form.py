"""The form of the answer to POST /v1/messages, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence

from vfastml.engine.dispatch_replies import Accepted
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.entrypoints.anthropic.message_events import MessageEvents
from vfastml.entrypoints.anthropic.message_style import Body, MessageStyle


class MessageForm:
    """Of one message."""

    def __init__(self, style: MessageStyle, message_id: str) -> None:
        self._style = style
        self._id = message_id

    def whole(self, results: Sequence[DispatchRequestResult]) -> Body:
        """See AnswerForm."""
        return self._style.whole(self._id, results[0])

    def events(self, model: str | None, accepted: Sequence[Accepted]) -> MessageEvents:
        """See AnswerForm."""
        return MessageEvents(self._style, self._id, model, accepted[0])
