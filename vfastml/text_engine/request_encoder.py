"""From a request to what the engine takes: its prompt as tokens, its parameters settled, and all of it checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import Constraint, SamplingParams, TemplateOptions, TextGenerationReq
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.bad_words import barred_tokens
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.grammars import PARAM
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.num_choices import check_between, num_choices
from vfastml.text_engine.prompt_encoder import PromptEncoder, context_length_exceeded
from vfastml.text_engine.sampling import Sampling, settle_sampling

_LONGEST_CUT = 1 << 20
"""Tokens of a prompt of which only the last ones are asked for."""


class RequestEncoder:
    """Encodes requests for one model. `defaults` hold where a request does not ask.

    Safe to use from two threads. The constructor raises InvalidRequestError for defaults that this model cannot keep.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        limits: Limits,
        defaults: ForwardDefaults,
        compiler: ConstraintCompiler | None = None,
    ) -> None:
        """Without a compiler, constraints are refused."""
        self._encoder = encoder
        self._compiler = compiler
        self._limits = limits
        self._defaults = defaults
        try:
            check_between("n", defaults.n, limits.max_num_seqs)
            self._check_tokens(defaults.sampling)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"model_forward_kwargs: {error.message}", param=error.param) from error

    def encode(self, request: TextGenerationReq) -> EncodedRequest:
        """Raises InvalidRequestError, or UnsupportedError, with the name of the field at fault."""
        if request.model_adapter_uri is not None:
            raise UnsupportedError("Adapters are not supported yet.", param="model_adapter_uri")
        _refuse_unsupported(request)
        choices = num_choices(request, self._defaults.n, self._limits.max_num_seqs)
        tokens = self._prompt_tokens(request)
        room = self._room_after(tokens, request)
        sampling = settle_sampling(request.sampling, self._defaults.sampling, room=room)
        if request.constraint is not None:  # what it allows may have no other end
            sampling = replace(sampling, ignore_eos=False)
        self._check_tokens(request.sampling)
        _check_sense(request, sampling)
        return EncodedRequest(
            request,
            tokens,
            self._with_tokens(sampling, is_ranked=choices.num_answers is not None),
            self._echo_text(request, tokens),
            choices.num_generated,
            choices.num_answers,
            self._matcher(request.constraint),
        )

    def encode_prompt(
        self,
        messages: list[dict[str, Any]] | str | None,
        prompt: str | None,
        *,
        add_special_tokens: bool = True,
        max_tokens: int | None = None,
    ) -> list[int]:
        """Token ids of exactly one of the two, at most `max_tokens`, else the context's; `add_special_tokens` is for
        `prompt`. Raises as `encode` does."""
        if (messages is None) == (prompt is None):
            raise InvalidRequestError("Give exactly one of messages and prompt.")
        max_tokens = max_tokens or self._limits.max_model_len
        if messages is not None:
            return self._encoder.encode_messages(messages, max_tokens=max_tokens)
        return self._encoder.encode_text(prompt or "", max_tokens=max_tokens, add_special_tokens=add_special_tokens)

    def _prompt_tokens(self, request: TextGenerationReq) -> list[int]:
        given = [part for part in (request.messages, request.prompt, request.prompt_token_ids) if part is not None]
        if len(given) != 1:
            raise InvalidRequestError("Give exactly one of messages, prompt and prompt token ids.")
        keep = self._num_kept(request)
        tokens = request.prompt_token_ids
        if tokens is None:
            most = self._limits.max_model_len if keep is None else _LONGEST_CUT
            tokens = self.encode_prompt(
                request.messages, request.prompt, add_special_tokens=request.add_special_tokens, max_tokens=most
            )
        else:
            self._encoder.check_token_ids(tokens, "prompt")
        return tokens if keep is None else tokens[-keep:]

    def _num_kept(self, request: TextGenerationReq) -> int | None:
        """Of the prompt's last tokens; None keeps all."""
        keep = request.truncate_prompt_tokens
        if keep is None:
            return None
        most = self._limits.max_model_len
        if keep == -1:
            answer = request.sampling.max_tokens
            return max(1, most - (1 if answer is None else answer))
        if not 1 <= keep <= most:
            message = f"'truncate_prompt_tokens' must be -1 or between 1 and {most}."
            raise InvalidRequestError(message, param="truncate_prompt_tokens")
        return keep

    def _room_after(self, tokens: list[int], request: TextGenerationReq) -> int:
        """Tokens that may be generated."""
        param = "prompt" if request.messages is None else "messages"
        if not tokens:
            raise InvalidRequestError("The prompt must have at least one token.", param=param)
        room = self._limits.max_model_len - len(tokens)
        if room < 0 or (room == 0 and request.sampling.max_tokens != 0):
            raise context_length_exceeded(self._limits.max_model_len, len(tokens), param)
        return room

    def _check_tokens(self, sampling: SamplingParams) -> None:
        """That they are in the vocabulary."""
        last = self._encoder.vocab_size - 1
        for name in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            if not all(0 <= token <= last for token in getattr(sampling, name) or ()):
                raise InvalidRequestError(f"'{name}' must name tokens between 0 and {last}.", param=name)

    def _with_tokens(self, sampling: Sampling, *, is_ranked: bool) -> Sampling:
        """With what only the one can add who knows the vocabulary."""
        if not (sampling.bad_words or is_ranked):
            return sampling
        barred = barred_tokens(sampling.bad_words, self._tokens_of_word)
        return replace(sampling, barred_tokens=barred, is_ranked=is_ranked)

    def _matcher(self, constraint: Constraint | None) -> TokenMatcher | None:
        if constraint is None:
            return None
        if self._compiler is None:
            raise UnsupportedError("Constraints are not supported by this server.", param=PARAM)
        return self._compiler.matcher(constraint)

    def _tokens_of_word(self, word: str) -> list[int]:
        return self._encoder.encode_text(word, max_tokens=self._limits.max_model_len, add_special_tokens=False)

    def _echo_text(self, request: TextGenerationReq, tokens: list[int]) -> str:
        if not request.echo:
            return ""
        return self._encoder.decode_all(tokens) if request.prompt is None else request.prompt


def _refuse_unsupported(request: TextGenerationReq) -> None:
    asked = {
        "tools": request.tool_use is not None,
        "template": request.template != TemplateOptions(),
        "suffix": request.suffix is not None,
        "splits_reasoning": request.splits_reasoning,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise UnsupportedError(f"'{name}' is not supported by this model server.", param=name)


def _check_sense(request: TextGenerationReq, sampling: Sampling) -> None:
    """Raises InvalidRequestError for wishes that contradict each other."""
    if request.beams is None:
        return
    if sampling.max_tokens == 0:
        raise InvalidRequestError("'max_tokens' must be at least 1 with beam search.", param="max_tokens")
    if sampling.repetition_detection is not None:
        message = "'repetition_detection' cannot be used with beam search."
        raise InvalidRequestError(message, param="repetition_detection")
