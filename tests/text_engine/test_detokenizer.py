"""Streamed text equals whole text, in constant work for each token; stop strings end it where they should."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.tiny_models import byte_tokenizer
from vfastml.text_engine.detokenizer import Decode, StopStrings, WindowDetokenizer
from vfastml.text_engine.prompt_encoder import PromptEncoder, load_prompt_encoder

REPLACEMENT = "\ufffd"
BYTES = PromptEncoder(byte_tokenizer())
EOS = 257
VOCAB = byte_tokenizer().get_vocab()
TOKEN_OF_BYTE = {byte: VOCAB[char] for byte, char in bytes_to_unicode().items()}
SPLIT_BYTES = st.lists(st.sampled_from(b"\xff\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80a"), max_size=150)
"""Pieces of one- to four-byte characters, often in an order that makes none."""


def byte_tokens(data: bytes | list[int]) -> list[int]:
    return [TOKEN_OF_BYTE[byte] for byte in data]


PROMPT = byte_tokens(b"Once upon a time")


def sentencepiece_like() -> PromptEncoder:
    """`▁` for a space, 256 byte tokens to fall back on, and a decoder that drops the first space of a text."""
    words = ["<unk>", "<s>", "</s>", "▁", "▁a", "b", "▁the", ",", "é"]
    vocab = {word: number for number, word in enumerate(words)}
    vocab |= {f"<0x{byte:02X}>": len(words) + byte for byte in range(256)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PromptEncoder(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


SPM = sentencepiece_like()
SPM_FIRST_BYTE = 9


def spm_bytes(text: str) -> list[int]:
    return [SPM_FIRST_BYTE + byte for byte in text.encode()]


def streamed(decode: Decode, prompt: Sequence[int], tokens: Sequence[int]) -> list[str]:
    detokenizer = WindowDetokenizer(decode, prompt)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


def whole(decode: Decode, prompt: list[int], tokens: list[int]) -> str:
    return decode(prompt + tokens)[len(decode(prompt)) :]


@given(st.text(min_size=1), st.text())
def test_pieces_are_whole_characters_of_any_text(prompt: str, text: str) -> None:
    pieces = streamed(BYTES.decode, byte_tokens(prompt.encode()), byte_tokens(text.encode()))
    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in pieces)


@given(st.one_of(st.binary(max_size=150).map(list), SPLIT_BYTES))
@settings(max_examples=400)
def test_pieces_of_any_bytes_join_to_the_whole(data: list[int]) -> None:
    tokens = byte_tokens(data)
    assert "".join(streamed(BYTES.decode, PROMPT, tokens)) == whole(BYTES.decode, PROMPT, tokens)


@given(SPLIT_BYTES, st.integers(min_value=0, max_value=150))
def test_special_tokens_in_the_middle_change_nothing(data: list[int], place: int) -> None:
    tokens = byte_tokens(data)
    tokens[place:place] = [EOS] * 5
    assert "".join(streamed(BYTES.decode, PROMPT, tokens)) == whole(BYTES.decode, PROMPT, tokens)


def test_character_that_comes_after_a_long_run_of_garbage_is_read() -> None:
    for length in range(1, 80):
        tokens = byte_tokens(b"\xff" * length + "€".encode())
        assert "".join(streamed(BYTES.decode, PROMPT, tokens)) == REPLACEMENT * length + "€"


@pytest.mark.parametrize(
    "tokens",
    [
        byte_tokens(b"\xff" * 5000),
        byte_tokens(b"\xe2" * 5000),
        [EOS] * 5000,
        [TOKEN_OF_BYTE[0xE2], *[EOS] * 5000],
        byte_tokens(b"a" * 5000),
    ],
    ids=["no byte of a character", "first bytes", "special", "first byte and special", "text"],
)
def test_work_per_token_stays_bounded(tokens: list[int]) -> None:
    sizes: list[int] = []

    def counting(given: list[int]) -> str:
        sizes.append(len(given))
        return BYTES.decode(given)

    prompt = PROMPT * 100
    assert "".join(streamed(counting, prompt, tokens)) == whole(BYTES.decode, prompt, tokens)
    assert max(sizes) <= 80
    assert len(sizes) <= 3 * len(tokens) + 20


def test_garbage_does_not_wait_for_the_end() -> None:
    pieces = streamed(BYTES.decode, PROMPT, byte_tokens(b"\xff" * 20))
    assert sum(map(len, pieces[:10])) >= 8


SPM_WORDS = st.lists(st.sampled_from(["▁", "▁a", "b", "▁the", ",", "é", "€", "😀", "字"]), min_size=1, max_size=30)


def spm_tokens(words: list[str]) -> list[int]:
    known = {"▁": 3, "▁a": 4, "b": 5, "▁the": 6, ",": 7, "é": 8}
    return [token for word in words for token in ([known[word]] if word in known else spm_bytes(word))]


@given(SPM_WORDS, SPM_WORDS, st.lists(st.integers(min_value=0, max_value=60), max_size=3))
@settings(max_examples=400)
def test_sentencepiece_keeps_its_spaces_and_byte_characters(
    prompt: list[str], words: list[str], special_places: list[int]
) -> None:
    tokens = spm_tokens(words)
    for place in special_places:
        tokens.insert(place, 2)
    before = [1, *spm_tokens(prompt)]
    pieces = streamed(SPM.decode, before, tokens)
    assert "".join(pieces) == whole(SPM.decode, before, tokens)
    assert REPLACEMENT not in "".join(pieces)


def test_sentencepiece_prompt_that_ends_in_special_tokens_still_gives_context() -> None:
    prompt = [1, 6, *[2] * 8]
    assert "".join(streamed(SPM.decode, prompt, [4, 2, 2, 6])) == " a the"


def test_sentencepiece_run_of_byte_characters_goes_on_across_the_prompt() -> None:
    prompt = [1, 6, *spm_bytes("😀😀😀")]
    assert "".join(streamed(SPM.decode, prompt, spm_bytes("😀€"))) == "😀€"


def test_real_tokenizer(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)
    prompt = encoder.encode_messages("Grüße 😀", max_tokens=1000)

    @given(st.one_of(st.text(max_size=40), st.text("😀字é a<|im_end|>", max_size=40)))
    @settings(max_examples=150)
    def check(text: str) -> None:
        tokens = encoder.encode_text(text, max_tokens=1000)
        pieces = streamed(encoder.decode, prompt, tokens)
        expected = whole(encoder.decode, prompt, tokens)  # the tokenizer has no token for some bytes
        assert "".join(pieces) == expected

    check()


# -- stop strings

STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4).map(tuple)
PIECES = st.lists(st.text("abc", max_size=6), max_size=20)


def push_all(stop: Sequence[str], pieces: Sequence[str]) -> tuple[str, str | None, list[str]]:
    """The text given out, the stop string, and the text after each piece."""
    strings, texts = StopStrings(stop), [""]
    for piece in pieces:
        text, found = strings.push(piece)
        texts.append(texts[-1] + text)
        if found is not None:
            return texts[-1], found, texts[1:]
    return texts[-1] + strings.flush(), None, texts[1:]


def by_definition(stop: Sequence[str], text: str) -> tuple[str, str | None]:
    """Reading from the left: the first place at which a stop string ends decides, and there the longest."""
    for end in range(len(text) + 1):
        ending = [string for string in stop if text[:end].endswith(string)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(STOPS, PIECES)
@settings(max_examples=500)
def test_stop_is_where_the_definition_says_however_the_text_is_split(stop: tuple[str, ...], pieces: list[str]) -> None:
    expected = by_definition(stop, "".join(pieces))
    assert push_all(stop, pieces)[:2] == expected
    assert push_all(stop, [*"".join(pieces)])[:2] == expected
    assert push_all(stop, ["".join(pieces)])[:2] == expected


@given(STOPS, PIECES)
def test_no_more_is_held_back_than_may_begin_a_stop_string(stop: tuple[str, ...], pieces: list[str]) -> None:
    _, found, texts = push_all(stop, pieces)
    for number, given_out in enumerate(texts[: len(texts) - (found is not None)], start=1):
        held = "".join(pieces[:number])[len(given_out) :]
        assert held == "" or any(string.startswith(held) for string in stop)


@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        (("aab",), "aaab", ("a", "aab")),
        (("abc", "b"), "abc", ("a", "b")),
        (("bc", "abc"), "xabc", ("x", "abc")),
        (("b", "a"), "ab", ("", "a")),
        (("</s>",), "a</s>b", ("a", "</s>")),
        (("ab",), "aca", ("aca", None)),
    ],
)
def test_overlapping_stop_strings(stop: tuple[str, ...], text: str, expected: tuple[str, str | None]) -> None:
    assert push_all(stop, [text])[:2] == push_all(stop, [*text])[:2] == expected


def test_stop_string_that_is_complete_while_none_is_honoured_is_text() -> None:
    strings = StopStrings(("ab", "xaby"))
    assert strings.push("xab", honoured=False) == ("", None)  # may still become xaby
    assert strings.push("z") == ("xabz", None)


def test_stop_string_that_is_complete_only_when_honoured_counts() -> None:
    strings = StopStrings(("ab",))
    assert strings.push("xa", honoured=False) == ("x", None)
    assert strings.push("b") == ("", "ab")
