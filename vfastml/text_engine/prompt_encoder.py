"""From a request's messages, text or ids to prompt tokens, and back to text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vfastml.engine.dispatch_requests import TemplateOptions
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.byte_detokenizer import ByteDetokenizer, token_pieces
from vfastml.text_engine.chat_dialect import ChatDialect, chat_dialect
from vfastml.text_engine.chat_template import ChatTemplate
from vfastml.text_engine.detokenizer import Detokenizer, WindowDetokenizer
from vfastml.text_engine.gap_tokens import GapTokens, gap_tokens
from vfastml.text_engine.token_bytes import TokenBytes

logger = logging.getLogger(__name__)

_PLAIN = TemplateOptions()


class PromptEncoder:
    """A model's tokenizer and chat template. Safe to use from two threads: nothing that it answers changes.

    The tokenizer may have more tokens than the model has embeddings; they are refused, because the model would break on
    one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_embeddings: int | None = None,
        chat_template: str | None = None,
        tool_call_parser: str = "auto",
        reasoning_parser: str = "auto",
    ) -> None:
        """`chat_template` stands in for the tokenizer's own; the parsers are as `chat_dialect` takes them. Raises
        InvalidRequestError for what is no template, and for unknown parsers."""
        if not tokenizer.is_fast:
            raise UnsupportedError(f"{type(tokenizer).__name__} is not a tokenizer of the tokenizers library.")
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        template = chat_template or _own_template(tokenizer)
        self.has_template = template is not None
        self.dialect: ChatDialect = chat_dialect(template or "", tool_call_parser, reasoning_parser)
        self._template = ChatTemplate(tokenizer, template, self.dialect.tools)
        if chat_template:
            self._template.check()
        self._pieces = token_pieces(self._backend)
        self._all_pieces = token_pieces(self._backend, keeps_special=True)
        self._token_bytes = TokenBytes(self._backend)
        vocab = self._backend.get_vocab(with_added_tokens=True)
        self._longest_token = max((len(token.encode()) for token in vocab), default=1)
        num_ids = max(vocab.values(), default=0) + 1  # more than tokens, where ids are left out
        self.vocab_size = num_ids if num_embeddings is None else min(num_ids, num_embeddings)
        self._gap_tokens: GapTokens | None = gap_tokens(self.special_id)
        if not self.has_template:
            logger.warning("the model has no chat template: messages become plain lines of 'role: content'")

    def render(
        self,
        messages: list[dict[str, Any]] | str,
        options: TemplateOptions = _PLAIN,
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        """The prompt's text, as ChatTemplate renders it."""
        return self._template.render(messages, options, tools)

    def encode_messages(
        self,
        messages: list[dict[str, Any]] | str,
        *,
        max_tokens: int,
        options: TemplateOptions = _PLAIN,
        tools: Sequence[dict[str, Any]] = (),
    ) -> list[int]:
        """Rendered with the chat template, which writes its own special tokens. Raises as `encode_text` and `render`
        do."""
        return self.encode_text(self.render(messages, options, tools), max_tokens=max_tokens, add_special_tokens=False)

    def encode_text(self, text: str, *, max_tokens: int, add_special_tokens: bool = True) -> list[int]:
        """Token ids. Raises InvalidRequestError (context_length_exceeded) for text that cannot have as few as
        `max_tokens` tokens, before spending time on it, and for text with tokens that the model lacks."""
        if len(text.encode()) > max_tokens * self._longest_token:
            raise context_length_exceeded(max_tokens)
        # encode_batch releases the interpreter lock, encode does not
        tokens = list(self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0].ids)
        if max(tokens, default=0) >= self.vocab_size:
            raise InvalidRequestError("The text has a special token that the model does not know.")
        return tokens

    def encode_gap(self, prompt: str | None, suffix: str, *, max_tokens: int) -> list[int]:
        """A prompt for what stands between the two texts. Raises as `encode_text` does, and UnsupportedError for a
        model that was not trained to fill in."""
        if self._gap_tokens is None:
            raise UnsupportedError("This model cannot fill in text before a 'suffix'.", param="suffix")
        if prompt is None:
            raise InvalidRequestError("'suffix' needs a prompt that is text.", param="suffix")
        before, after = (
            self.encode_text(text, max_tokens=max_tokens, add_special_tokens=False) for text in (prompt, suffix)
        )
        return self._gap_tokens.around(before, after)

    def decode(self, tokens: list[int]) -> str:
        """Text without special tokens."""
        return str(self._backend.decode(tokens, skip_special_tokens=True))

    def decode_all(self, tokens: list[int]) -> str:
        """Text with special tokens."""
        return str(self._backend.decode(tokens, skip_special_tokens=False))

    def detokenizer(self, prompt: Sequence[int], *, keeps_special: bool = False) -> Detokenizer:
        """Of what comes after the prompt: `decode`, or `decode_all` with `keeps_special`, piece by piece."""
        pieces = self._all_pieces if keeps_special else self._pieces
        if pieces is not None:
            return ByteDetokenizer(pieces, prompt)
        return WindowDetokenizer(self.decode_all if keeps_special else self.decode, prompt)

    def token_bytes(self, token: int) -> bytes:
        """The text of one token, special or not, which need not be whole characters. No text for what is no token."""
        return self._token_bytes[token]

    def check_token_ids(self, tokens: list[int], param: str) -> None:
        """Raises InvalidRequestError if one is not in the vocabulary."""
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            raise InvalidRequestError(f"Token ids must lie between 0 and {self.vocab_size - 1}.", param=param)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What it is made of."""
        return self._tokenizer

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's own end token."""
        return self._tokenizer.eos_token_id  # type: ignore[no-any-return]

    def special_id(self, text: str) -> int | None:
        """The id of the special token that is spelled so; None for other tokens, and for what is no token."""
        token = self._backend.token_to_id(text)
        added = None if token is None else self._tokenizer.added_tokens_decoder.get(token)
        return token if added is not None and added.special else None


def load_prompt_encoder(folder: Path, *, num_embeddings: int, **options: Any) -> PromptEncoder:
    """The tokenizer in a model's folder; no code of the folder is run. `options` are PromptEncoder's."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return PromptEncoder(tokenizer, num_embeddings=num_embeddings, **options)


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The tokenizer's; of several, the one that knows tools."""
    own = tokenizer.chat_template
    return own.get("tool_use", own.get("default")) if isinstance(own, dict) else own


def context_length_exceeded(max_model_len: int, num_tokens: int | None = None, param: str | None = None) -> Exception:
    """The refusal that OpenAI's clients know."""
    many = "more than that" if num_tokens is None else f"{num_tokens} tokens"
    return InvalidRequestError(
        f"This model's maximum context length is {max_model_len} tokens, but the prompt has {many}.",
        param=param,
        code="context_length_exceeded",
    )
