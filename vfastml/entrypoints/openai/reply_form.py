"""The form of the answers to chat and completions, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence

from vfastml.engine.dispatch_replies import Accepted
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.entrypoints.openai.replies import Body, ReplyEvents, whole_body
from vfastml.entrypoints.openai.reply_styles import ReplyStyle
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.timings import TimedAnswer, slowest


class ReplyForm:
    """Of the answer to one body."""

    def __init__(self, body: TextRequest, style: ReplyStyle, response_id: str) -> None:
        self._body = body
        self._style = style
        self._id = response_id

    def whole(self, results: Sequence[DispatchRequestResult]) -> Body:
        """See AnswerForm."""
        body = whole_body(self._style, self._id, results)
        if self._body.return_timings:
            body["timings"] = slowest(TimedAnswer.of(result.result) for result in results).body()
        return body

    def events(self, model: str | None, accepted: Sequence[Accepted]) -> ReplyEvents:
        """See AnswerForm."""
        return ReplyEvents(
            self._style,
            self._id,
            model,
            accepted,
            choices_per_prompt=self._body.n or max(one.num_choices for one in accepted),
            with_usage=self._body.wants_usage_chunk(),
            with_timings=bool(self._body.return_timings),
        )
