"""The bodies of the OpenAI routes, for routes of your own."""

from vfastml.entrypoints.openai.chat import ChatCompletionsRequest
from vfastml.entrypoints.openai.completions import CompletionsRequest
from vfastml.entrypoints.openai.tokenize import DetokenizeRequest, TokenizeRequest

__all__ = ["ChatCompletionsRequest", "CompletionsRequest", "DetokenizeRequest", "TokenizeRequest"]
