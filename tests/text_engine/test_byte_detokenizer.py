"""Looked-up bytes give the text that the tokenizer's own `decode` gives, whatever the tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.text_engine.test_detokenizer import SPM
from tests.tiny_models import byte_tokenizer
from vfastml.text_engine.byte_detokenizer import ByteDetokenizer
from vfastml.text_engine.detokenizer import WindowDetokenizer
from vfastml.text_engine.prompt_encoder import PromptEncoder, load_prompt_encoder

REPLACEMENT = "\ufffd"
ADDED = ["é", "Ġ", "ÿ", " with spaces ", "日本", "odd \ufffd", "<tool>", "a"]
"""In the alphabet of bytes (which then says another thing), and outside of it."""


def with_added_tokens() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(content, normalized=False) for content in ADDED[:-2]])
    tokenizer.add_tokens([AddedToken(content, special=True) for content in ADDED[-2:]])  # one is a byte's own token
    return tokenizer


BYTES = PromptEncoder(with_added_tokens())
PLAIN = PromptEncoder(byte_tokenizer())
VOCAB = byte_tokenizer().get_vocab()
NUM_TOKENS = len(with_added_tokens())
TOKEN_OF_BYTE = {byte: VOCAB[char] for byte, char in bytes_to_unicode().items()}
SPLIT = st.sampled_from(b"\xff\xc0\xc3\xa9\xe0\xe2\x82\xac\xed\xa0\xf0\x9f\x98\x80\xf4\x90a").map(TOKEN_OF_BYTE.get)
"""Pieces of characters, of surrogates and of what is too long or too large."""
TOKENS = st.lists(st.one_of(SPLIT, st.integers(min_value=0, max_value=NUM_TOKENS + 3)), max_size=60)


def streamed(encoder: PromptEncoder, prompt: list[int], tokens: list[int]) -> list[str]:
    detokenizer = encoder.detokenizer(prompt)
    assert isinstance(detokenizer, ByteDetokenizer)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


def assert_as_decoded(encoder: PromptEncoder, prompt: list[int], tokens: list[int]) -> None:
    pieces, skipped = streamed(encoder, prompt, tokens), len(encoder.decode(prompt))
    assert "".join(pieces) == encoder.decode(prompt + tokens)[skipped:]
    for number in range(len(tokens)):
        given_out, so_far = "".join(pieces[:number]), encoder.decode(prompt + tokens[:number])[skipped:]
        held = so_far.removeprefix(given_out)
        assert given_out + held == so_far
        assert held in ("", REPLACEMENT, 2 * REPLACEMENT)  # of one begun character


@given(TOKENS, TOKENS)
@settings(max_examples=400)
def test_any_tokens_after_any_prompt(prompt: list[int], tokens: list[int]) -> None:
    assert_as_decoded(BYTES, prompt, tokens)


@given(st.text(), st.text())
def test_text_comes_in_whole_characters(prompt: str, text: str) -> None:
    pieces = streamed(PLAIN, *([TOKEN_OF_BYTE[byte] for byte in each.encode()] for each in (prompt, text)))
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) == len(text)


@pytest.mark.parametrize("added", range(len(ADDED)))
def test_added_tokens(added: int) -> None:
    token = BYTES._backend.token_to_id(ADDED[added])
    assert token is not None
    assert_as_decoded(BYTES, [], [TOKEN_OF_BYTE[0xE2], token, TOKEN_OF_BYTE[0x82], token, token])


def test_special_tokens_between_the_bytes_of_a_character() -> None:
    first, *others = (TOKEN_OF_BYTE[byte] for byte in "€".encode())
    assert streamed(BYTES, [256], [first, 257, *others, 258]) == ["", "", "", "€", "", ""]
    assert "".join(streamed(BYTES, [first, 257], [*others, *others])) == 2 * REPLACEMENT


def test_real_tokenizer(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)
    tokens = st.lists(st.integers(min_value=0, max_value=encoder.vocab_size + 3), max_size=30)

    @given(tokens, tokens, st.text("😀字é a<|im_end|>", max_size=20))
    @settings(max_examples=200)
    def check(prompt: list[int], tokens: list[int], text: str) -> None:
        assert_as_decoded(encoder, prompt, tokens + encoder.encode_text(text, max_tokens=1000))

    check()


def test_every_token_of_the_real_tokenizer_by_itself(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)
    for token in range(encoder.vocab_size):
        assert "".join(streamed(encoder, [], [token])) == encoder.decode([token])


def test_only_byte_level_tokenizers() -> None:
    assert isinstance(SPM.detokenizer([1, 6]), WindowDetokenizer)
