"""Text as it is streamed, from token to stop string, against the text that a tokenizer makes of all tokens at once."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text_engine.test_byte_detokenizer import BYTES, NUM_TOKENS, SPLIT
from tests.text_engine.test_detokenizer import SPM, by_definition
from vfastml.text_engine.byte_detokenizer import ByteDetokenizer
from vfastml.text_engine.detokenizer import Detokenizer, StopStrings, WindowDetokenizer
from vfastml.text_engine.prompt_encoder import PromptEncoder

TOKENS = st.lists(SPLIT | st.integers(min_value=0, max_value=NUM_TOKENS + 3), max_size=60)
SPM_TOKENS = st.lists(st.integers(min_value=0, max_value=SPM.vocab_size + 3), max_size=40)
STOPS = st.lists(st.text("a €日\ufffd😀字", min_size=1, max_size=4), max_size=4).map(tuple)
light = settings(max_examples=300, deadline=None)


def streamed(detokenizer: Detokenizer, stop: Sequence[str], tokens: Sequence[int]) -> tuple[str, str | None]:
    """The text that a client gets, and the stop string that ended it."""
    strings, text = StopStrings(stop), ""
    for piece in (*map(detokenizer.push, tokens), detokenizer.flush()):
        given_out, found = strings.push(piece)
        text += given_out
        if found is not None:
            return text, found
    return text + strings.flush(), None


def continuation(encoder: PromptEncoder, prompt: list[int], tokens: list[int]) -> str:
    return encoder.decode(prompt + tokens)[len(encoder.decode(prompt)) :]


@light
@given(TOKENS, TOKENS, STOPS)
def test_stop_strings_in_a_stream_of_bytes(prompt: list[int], tokens: list[int], stop: tuple[str, ...]) -> None:
    detokenizer = BYTES.detokenizer(prompt)
    assert isinstance(detokenizer, ByteDetokenizer)
    assert streamed(detokenizer, stop, tokens) == by_definition(stop, continuation(BYTES, prompt, tokens))


@light
@given(TOKENS, STOPS)
def test_both_detokenizers_say_the_same(tokens: list[int], stop: tuple[str, ...]) -> None:
    prompt = BYTES.encode_text("Once", max_tokens=10)
    windowed = WindowDetokenizer(BYTES.decode, prompt)
    assert streamed(windowed, stop, tokens) == streamed(BYTES.detokenizer(prompt), stop, tokens)


@light
@given(SPM_TOKENS, SPM_TOKENS, STOPS)
def test_any_tokens_of_sentencepiece_come_to_an_end(
    prompt: list[int], tokens: list[int], stop: tuple[str, ...]
) -> None:
    text, found = streamed(SPM.detokenizer(prompt), stop, tokens)
    assert found is None or found not in text
    assert text.encode(errors="strict") is not None


@light
@given(st.lists(st.integers(min_value=-5, max_value=1 << 31), max_size=20))
def test_numbers_that_are_no_tokens_have_no_text(numbers: list[int]) -> None:
    foreign = [number for number in numbers if number >= NUM_TOKENS]
    assert streamed(BYTES.detokenizer(foreign), (), foreign) == ("", None)
