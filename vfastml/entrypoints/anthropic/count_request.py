"""The body of POST /v1/messages/count_tokens."""

from __future__ import annotations

from vfastml.engine.dispatch_requests import TokenizeReq
from vfastml.entrypoints.anthropic.prompt_fields import PromptFields
from vfastml.entrypoints.openai.tool_fields import described_tools


class CountTokensRequest(PromptFields):
    """A body that asks how long its prompt is."""

    def to_work(self, request_id: str) -> TokenizeReq:
        """What the engine takes."""
        chat = self.chat()
        return TokenizeReq(
            request_id=request_id,
            model_uri=self.model,
            messages=chat,
            template=self.template(chat),
            tools=described_tools(self.tool_use()),
        )
