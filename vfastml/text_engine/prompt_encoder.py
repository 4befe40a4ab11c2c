"""From a request's messages, text or ids to prompt tokens, and back to text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.byte_detokenizer import ByteDetokenizer, token_pieces
from vfastml.text_engine.detokenizer import Detokenizer, WindowDetokenizer
from vfastml.text_engine.token_bytes import TokenBytes

logger = logging.getLogger(__name__)

_TEXT_PARTS = ("text", "refusal")
"""Types of content parts; the text is under the same name."""


class PromptEncoder:
    """A model's tokenizer and chat template. Safe to use from two threads: nothing that it answers changes.

    Without a chat template, messages become lines of `role: content` and a last line `assistant:`. The tokenizer may
    have more tokens than the model has embeddings; they are refused, because the model would break on one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, num_embeddings: int | None = None) -> None:
        if not tokenizer.is_fast:
            raise UnsupportedError(f"{type(tokenizer).__name__} is not a tokenizer of the tokenizers library.")
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._template: str | None = tokenizer.chat_template
        if isinstance(self._template, dict):
            self._template = self._template.get("default")
        self.has_template = self._template is not None
        self._pieces = token_pieces(self._backend)
        self._all_pieces = token_pieces(self._backend, keeps_special=True)
        self._token_bytes = TokenBytes(self._backend)
        vocab = self._backend.get_vocab(with_added_tokens=True)
        self._longest_token = max((len(token.encode()) for token in vocab), default=1)
        num_ids = max(vocab.values(), default=0) + 1  # more than tokens, where ids are left out
        self.vocab_size = num_ids if num_embeddings is None else min(num_ids, num_embeddings)
        if not self.has_template:
            logger.warning("the model has no chat template: messages become plain lines of 'role: content'")

    def encode_messages(self, messages: list[dict[str, Any]] | str, *, max_tokens: int) -> list[int]:
        """Rendered with the chat template, which writes its own special tokens. Raises as `encode_text` does, and
        InvalidRequestError if the template refuses the messages."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.encode_text(self._render(messages), max_tokens=max_tokens, add_special_tokens=False)

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

    def _plain(self, message: dict[str, Any]) -> dict[str, Any]:
        """Text parts joined, absent content empty, `developer` as `system` unless the template knows it."""
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str):
            raise InvalidRequestError("Each message must be an object with a 'role'.", param="messages")
        if role == "developer" and "developer" not in (self._template or ""):
            role = "system"
        return {**message, "role": role, "content": _joined(message.get("content"))}

    def _render(self, messages: list[dict[str, Any]]) -> str:
        plain = [self._plain(message) for message in messages]
        if self._template is None:
            lines = [f"{message['role']}: {message['content']}" for message in plain]
            return "\n".join([*lines, "assistant:"])
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    plain, chat_template=self._template, tokenize=False, add_generation_prompt=True
                )
            )
        except TemplateError as error:  # the template's own words, such as "roles must alternate"
            reason = str(error)[:200]
            raise InvalidRequestError(f"The model's chat template refused: {reason}", param="messages") from error
        except Exception as error:
            logger.info("chat template failed: %r", error)
            raise InvalidRequestError("The messages do not fit the model's chat template.", param="messages") from error


def _joined(content: object) -> str:
    """The text of a message. Raises InvalidRequestError for content that is no text."""
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    if content is None or isinstance(content, str):
        return content or ""
    raise InvalidRequestError("The content of a message must be a string, a list or null.", param="messages")


def _part_text(part: object) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    text = part.get(kind) if isinstance(part, dict) and kind in _TEXT_PARTS else None
    if not isinstance(text, str):
        raise InvalidRequestError("The parts of a message's content must be text.", param="messages")
    return text


def load_prompt_encoder(folder: Path, *, num_embeddings: int) -> PromptEncoder:
    """The tokenizer in a model's folder; no code of the folder is run."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return PromptEncoder(tokenizer, num_embeddings=num_embeddings)


def context_length_exceeded(max_model_len: int, num_tokens: int | None = None, param: str | None = None) -> Exception:
    """The refusal that OpenAI's clients know."""
    many = "more than that" if num_tokens is None else f"{num_tokens} tokens"
    return InvalidRequestError(
        f"This model's maximum context length is {max_model_len} tokens, but the prompt has {many}.",
        param=param,
        code="context_length_exceeded",
    )
