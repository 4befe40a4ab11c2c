"""Messages and texts become tokens; what is malformed is refused as the client's fault, whatever it is."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.tiny_models import byte_tokenizer
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.prompt_encoder import PromptEncoder, context_length_exceeded, load_prompt_encoder

ECHO_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def encoder_with(template: str | None) -> PromptEncoder:
    return PromptEncoder(byte_tokenizer(template))


ECHO = encoder_with(ECHO_TEMPLATE)
PLAIN = encoder_with(None)


def rendered(messages: Any, encoder: PromptEncoder = ECHO) -> str:
    return encoder.decode_all(encoder.encode_messages(messages, max_tokens=100_000))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ("hello", "[user|hello]>"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "[user|a][assistant|b]>"),
        ([{"role": "assistant", "content": None}], "[assistant|]>"),
        ([{"role": "assistant"}], "[assistant|]>"),
        ([{"role": "user", "content": []}], "[user|]>"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "[user|ab]>"),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}], "[assistant|no]>"),
        ([{"role": "developer", "content": "d"}], "[system|d]>"),
    ],
)
def test_messages(messages: Any, text: str) -> None:
    assert rendered(messages) == text


def test_developer_stays_where_the_template_knows_it() -> None:
    encoder = encoder_with("{% if messages[0].role == 'developer' %}D{% else %}other{% endif %}")
    assert rendered([{"role": "developer", "content": "d"}], encoder) == "D"


def test_other_keys_reach_the_template() -> None:
    encoder = encoder_with("{{ messages[0].moods[0].name }}")
    assert rendered([{"role": "assistant", "content": None, "moods": [{"name": "f"}]}], encoder) == "f"


def test_messages_of_the_caller_are_not_written_to() -> None:
    message = {"role": "developer", "content": [{"type": "text", "text": "a"}]}
    rendered([message])
    assert message == {"role": "developer", "content": [{"type": "text", "text": "a"}]}


def test_without_a_template_messages_are_plain_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder = encoder_with(None)
    assert "no chat template" in caplog.text
    assert not encoder.has_template
    messages = [{"role": "developer", "content": "be kind"}, {"role": "user", "content": None}]
    assert rendered(messages, encoder) == "system: be kind\nuser: \nassistant:"


def test_special_tokens_are_added_to_text_and_not_to_rendered_messages(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)
    assert (
        encoder.decode_all(encoder.encode_messages("hi", max_tokens=1000)).count("<|im_start|>user\nhi<|im_end|>") == 1
    )
    assert encoder.decode(encoder.encode_text("<|im_start|>hi", max_tokens=100)) == "hi"


# -- refusals


@pytest.mark.parametrize("template", [ECHO_TEMPLATE, None])
@pytest.mark.parametrize(
    "messages",
    [
        ["hello"],
        [None],
        [7],
        [[{"role": "user", "content": "a"}]],
        [{}],
        [{"content": "no role"}],
        [{"role": None, "content": "a"}],
        [{"role": ["user"], "content": "a"}],
        [{"role": {"a": 1}, "content": "a"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": False}],
        [{"role": "user", "content": {"text": "a"}}],
        [{"role": "user", "content": ["a"]}],
        [{"role": "user", "content": [None]}],
        [{"role": "user", "content": [["a"]]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        [{"role": "user", "content": [{"type": "text", "text": ["a"]}]}],
        [{"role": "user", "content": [{"type": ["text"], "text": "a"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}, "text": "a"}]}],
    ],
)
def test_malformed_messages_are_refused(template: str | None, messages: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        encoder_with(template).encode_messages(messages, max_tokens=1000)
    assert refused.value.param == "messages"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(JUNK, max_size=3))
@settings(max_examples=300)
def test_junk_is_encoded_or_refused(messages: Any) -> None:
    for encoder in (ECHO, PLAIN):
        with contextlib.suppress(InvalidRequestError):
            assert encoder.encode_messages(messages, max_tokens=1000)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refused: roles must alternate"),
        ("{{ messages[5].role.x }}", "refused: "),
        ("{{ messages[0].content + 1 }}", "do not fit"),
        ("{{ 1 // 0 }}", "do not fit"),
        ("{% for x in 7 %}{% endfor %}", "do not fit"),
        ("{% nonsense %}", "refused: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refused: "),
    ],
)
def test_template_that_fails_is_the_messages_fault(template: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as refused:
        encoder_with(template).encode_messages("hello", max_tokens=1000)
    assert refused.value.param == "messages"
    assert len(refused.value.message) < 300


@pytest.mark.rule("S4")
def test_over_long_text_is_refused_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_with(None)
    longest = encoder._longest_token  # of any token, in bytes
    assert len(encoder.encode_text("a" * longest * 10, max_tokens=10)) == longest * 10
    monkeypatch.setattr(encoder, "_backend", None)
    with pytest.raises(InvalidRequestError) as refused:
        encoder.encode_text("a" * (longest * 10 + 1), max_tokens=10)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(InvalidRequestError):
        encoder.encode_text("é" * (longest * 5 + 1), max_tokens=10)


def test_context_length_exceeded_says_how_much() -> None:
    error = context_length_exceeded(10, 12, "prompt")
    assert "10 tokens" in str(error)
    assert "12 tokens" in str(error)


@pytest.mark.parametrize("tokens", [[-1], [0, 259], [1 << 40], [0, -(1 << 70)]])
def test_token_ids_outside_of_the_vocabulary(tokens: list[int]) -> None:
    with pytest.raises(InvalidRequestError, match="between 0 and 258") as refused:
        ECHO.check_token_ids(tokens, "prompt")
    assert refused.value.param == "prompt"


def test_token_ids_inside_of_it() -> None:
    ECHO.check_token_ids([], "prompt")
    ECHO.check_token_ids([0, 258], "prompt")


def test_ids_that_leave_a_gap_are_all_known() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 9}, merges=[]))
    encoder = PromptEncoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert encoder.vocab_size == 10
    encoder.check_token_ids(encoder.encode_text("b", max_tokens=5), "prompt")


def test_tokens_that_the_model_lacks_are_refused() -> None:
    encoder = PromptEncoder(byte_tokenizer(ECHO_TEMPLATE), num_embeddings=257)
    assert encoder.vocab_size == 257
    assert encoder.encode_text("<s>", max_tokens=5) == [256]
    for refuse in (
        lambda: encoder.encode_text("a</s>", max_tokens=5),
        lambda: encoder.encode_messages("a<pad>", max_tokens=50),
        lambda: encoder.check_token_ids([257], "prompt"),
    ):
        with pytest.raises(InvalidRequestError):
            refuse()


def test_slow_tokenizer_is_refused_by_name() -> None:
    class SlowTokenizer(PreTrainedTokenizerBase):
        is_fast = False

        def __init__(self) -> None: ...

    with pytest.raises(UnsupportedError, match="SlowTokenizer"):
        PromptEncoder(SlowTokenizer())


def test_encode_decode_and_templates_from_four_threads(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)
    texts = ["Grüße aus dem All 😀 " * 3, "def f(x):\n    return x", "<|im_start|>"]

    def work() -> list[Any]:
        tokens = [encoder.encode_text(text, max_tokens=500) for text in texts]
        return [
            tokens,
            [encoder.decode(t) for t in tokens],
            [encoder.encode_messages(t, max_tokens=500) for t in texts],
        ]

    expected, wrong, rounds = work(), [], []
    until = time.monotonic() + 2.0

    def hammer() -> None:
        count = 0
        while time.monotonic() < until:
            count += 1
            try:
                if work() != expected:
                    wrong.append("another result")
            except BaseException as error:
                wrong.append(repr(error))
        rounds.append(count)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert wrong == []
    assert len(rounds) == 4
    assert min(rounds) > 2
