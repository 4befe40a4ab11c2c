"""From a request to what the engine takes: its prompt as tokens, its parameters settled, and all of it checked."""

from __future__ import annotations

import math
from dataclasses import replace

from vfastml.engine.dispatch_replies import Limits, Tokenized
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq, TokenizeReq
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.answer_forms import AnswerForms
from vfastml.text_engine.answer_size import check_answer_size
from vfastml.text_engine.bad_words import barred_tokens
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.num_choices import check_between, num_choices
from vfastml.text_engine.prompt_encoder import PromptEncoder, context_length_exceeded
from vfastml.text_engine.sampling import Sampling, settle_sampling
from vfastml.text_engine.tools.offered_functions import check_functions, offered_tools

_LONGEST_CUT = 1 << 20
"""Tokens of a prompt of which only the last ones are asked for."""
_END_TOKENS = 16
"""Of the prompt, which may end with the beginning of reasoning."""
_CONTINUED_TOKENS = 4096
"""Of one that may end in the midst of it."""


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
        self._forms = AnswerForms(encoder.dialect, encoder.special_id, compiler)
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
        if not 0 < request.share_weight < math.inf:  # written so that NaN is refused too
            raise InvalidRequestError("'share_weight' must be a positive number.", param="share_weight")
        choices = num_choices(request, self._defaults.n, self._limits.max_num_seqs)
        tokens = self._prompt_tokens(request)
        room = self._room_after(tokens, request)
        sampling = settle_sampling(request.sampling, self._defaults.sampling, room=room)
        self._check_tokens(request.sampling)
        num_read = _CONTINUED_TOKENS if request.template.continue_final_message else _END_TOKENS
        form = self._forms.of(request, self._encoder.decode_all(tokens[-num_read:]))
        if form.matcher is not None:  # what it allows may have no other end
            sampling = replace(sampling, ignore_eos=False)
        _check_sense(request, sampling)
        encoded = EncodedRequest(
            request,
            tokens,
            self._with_tokens(sampling, is_ranked=choices.num_answers is not None),
            self._echo_text(request, tokens),
            choices.num_generated,
            choices.num_answers,
            form.matcher,
            form.new_output_parser,
            form.keeps_special_tokens,
        )
        check_answer_size(encoded)
        return encoded

    def tokenized(self, request: TokenizeReq) -> Tokenized:
        """The answer. Raises as `encode` does."""
        if (request.messages is None) == (request.prompt is None):
            raise InvalidRequestError("Give exactly one of messages and prompt.")
        most = self._limits.max_model_len
        if request.messages is None:
            text = request.prompt or ""
            tokens = self._encoder.encode_text(text, max_tokens=most, add_special_tokens=request.add_special_tokens)
        else:
            check_functions(request.tools)
            text = self._encoder.render(request.messages, request.template, request.tools)
            tokens = self._encoder.encode_text(text, max_tokens=most, add_special_tokens=False)
        return Tokenized(request.request_id, tokens, most, text if request.with_text else None)

    def _prompt_tokens(self, request: TextGenerationReq) -> list[int]:
        given = [part for part in (request.messages, request.prompt, request.prompt_token_ids) if part is not None]
        if len(given) != 1:
            raise InvalidRequestError("Give exactly one of messages, prompt and prompt token ids.")
        keep = self._num_kept(request)
        tokens = self._all_prompt_tokens(request, self._limits.max_model_len if keep is None else _LONGEST_CUT)
        return tokens if keep is None else tokens[-keep:]

    def _all_prompt_tokens(self, request: TextGenerationReq, most: int) -> list[int]:
        if request.suffix is not None:
            return self._encoder.encode_gap(request.prompt, request.suffix, max_tokens=most)
        if request.prompt_token_ids is not None:
            self._encoder.check_token_ids(request.prompt_token_ids, "prompt")
            return request.prompt_token_ids
        if request.messages is None:
            special = request.add_special_tokens
            return self._encoder.encode_text(request.prompt or "", max_tokens=most, add_special_tokens=special)
        tools = offered_tools(request)
        return self._encoder.encode_messages(
            request.messages,
            max_tokens=most,
            options=request.template,
            tools=() if tools is None else tools.tools,
        )

    def _num_kept(self, request: TextGenerationReq) -> int | None:
        """Of the prompt's last tokens; None keeps all."""
        keep = request.truncate_prompt_tokens
        if keep is None:
            return None
        most = self._limits.max_model_len
        if keep == -1:
            return most - self._room_kept_free(request.sampling.max_tokens)
        if not 1 <= keep <= most:
            message = f"'truncate_prompt_tokens' must be -1 or between 1 and {most}."
            raise InvalidRequestError(message, param="truncate_prompt_tokens")
        return keep

    def _room_kept_free(self, asked: int | None) -> int:
        """For the answer to a prompt that is cut: not so much that little is left of the prompt."""
        most = max(1, self._limits.max_model_len // 4)
        return most if asked is None else min(asked, most)

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

    def _tokens_of_word(self, word: str) -> list[int]:
        return self._encoder.encode_text(word, max_tokens=self._limits.max_model_len, add_special_tokens=False)

    def _echo_text(self, request: TextGenerationReq, tokens: list[int]) -> str:
        if not request.echo:
            return ""
        return self._encoder.decode_all(tokens) if request.prompt is None else request.prompt


def _check_sense(request: TextGenerationReq, sampling: Sampling) -> None:
    """Raises InvalidRequestError for wishes that contradict each other."""
    if request.beams is None:
        return
    if sampling.max_tokens == 0:
        raise InvalidRequestError("'max_tokens' must be at least 1 with beam search.", param="max_tokens")
    if sampling.repetition_detection is not None:
        message = "'repetition_detection' cannot be used with beam search."
        raise InvalidRequestError(message, param="repetition_detection")
