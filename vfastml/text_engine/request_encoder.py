"""From a request to what the engine takes: its prompt as tokens, its parameters settled, and all of it checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.prompt_encoder import PromptEncoder, context_length_exceeded
from vfastml.text_engine.sampling import settle_sampling
from vfastml.text_engine.text_request import EncodedRequest


class RequestEncoder:
    """Encodes requests for one model. `defaults` hold where a request does not ask.

    Safe to use from two threads. The constructor raises InvalidRequestError for defaults that this model cannot keep.
    """

    def __init__(self, encoder: PromptEncoder, limits: Limits, defaults: ForwardDefaults) -> None:
        self._encoder = encoder
        self._limits = limits
        self._defaults = defaults
        try:
            self._check_num_choices(defaults.n)
            self._check_bias(defaults.sampling.logit_bias or {})
        except InvalidRequestError as error:
            raise InvalidRequestError(f"model_forward_kwargs: {error.message}", param=error.param) from error

    def encode(self, request: TextGenerationReq) -> EncodedRequest:
        """Raises InvalidRequestError, or UnsupportedError, with the name of the field at fault."""
        if request.model_adapter_uri is not None:
            raise UnsupportedError("Adapters are not supported yet.", param="model_adapter_uri")
        num_choices = self._defaults.n if request.n is None else request.n
        self._check_num_choices(num_choices)
        tokens = self._prompt_tokens(request)
        room = self._room_after(tokens, "prompt" if request.messages is None else "messages")
        sampling = settle_sampling(request.sampling, self._defaults.sampling, room=room)
        self._check_bias(sampling.logit_bias)
        return EncodedRequest(request, tokens, sampling, self._echo_text(request, tokens), num_choices)

    def encode_prompt(
        self, messages: list[dict[str, Any]] | str | None, prompt: str | None, *, add_special_tokens: bool = True
    ) -> list[int]:
        """Token ids of exactly one of the two; `add_special_tokens` is for `prompt`. Raises as `encode` does."""
        if (messages is None) == (prompt is None):
            raise InvalidRequestError("Give exactly one of messages and prompt.")
        max_tokens = self._limits.max_model_len
        if messages is not None:
            return self._encoder.encode_messages(messages, max_tokens=max_tokens)
        return self._encoder.encode_text(prompt or "", max_tokens=max_tokens, add_special_tokens=add_special_tokens)

    def _prompt_tokens(self, request: TextGenerationReq) -> list[int]:
        given = [part for part in (request.messages, request.prompt, request.prompt_token_ids) if part is not None]
        if len(given) != 1:
            raise InvalidRequestError("Give exactly one of messages, prompt and prompt token ids.")
        if request.prompt_token_ids is None:
            return self.encode_prompt(request.messages, request.prompt)
        self._encoder.check_token_ids(request.prompt_token_ids, "prompt")
        return request.prompt_token_ids

    def _room_after(self, tokens: list[int], param: str) -> int:
        """Tokens that may be generated."""
        if not tokens:
            raise InvalidRequestError("The prompt must have at least one token.", param=param)
        room = self._limits.max_model_len - len(tokens)
        if room < 1:
            raise context_length_exceeded(self._limits.max_model_len, len(tokens), param)
        return room

    def _check_num_choices(self, count: int) -> None:
        if not 1 <= count <= self._limits.max_num_seqs:
            raise InvalidRequestError(f"'n' must be between 1 and {self._limits.max_num_seqs}.", param="n")

    def _check_bias(self, bias: Mapping[int, float]) -> None:
        last = self._encoder.vocab_size - 1
        if not all(0 <= token <= last for token in bias):
            raise InvalidRequestError(f"'logit_bias' must name tokens between 0 and {last}.", param="logit_bias")

    def _echo_text(self, request: TextGenerationReq, tokens: list[int]) -> str:
        if not request.echo:
            return ""
        return self._encoder.decode_all(tokens) if request.prompt is None else request.prompt
