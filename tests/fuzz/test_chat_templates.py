"""Messages that the API lets through meet a chat template: they are rendered, word for word, or refused as theirs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_models import byte_tokenizer
from vfastml.entrypoints.openai.chat import ChatCompletionsRequest
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import UserError
from vfastml.text_engine.prompt_encoder import PromptEncoder, load_prompt_encoder

TEMPLATES = {
    "plain": "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}",
    "strict": "{% if messages[0].role != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}",
    "tools": "{% for m in messages %}{% if m.tool_calls %}{% for call in m.tool_calls %}{{ call.function.name }}"
    "({{ call.function.arguments | tojson }}){% endfor %}{% endif %}{{ m.name or '' }}{{ m.content + '' }}{% endfor %}",
    "arithmetic": "{% for m in messages %}{{ m.content[:5] }}{{ m.name | length }}{{ m.x // m.y }}{% endfor %}",
}
ENCODERS = {name: PromptEncoder(byte_tokenizer(template)) for name, template in TEMPLATES.items()}
ENOUGH = 1 << 20

TEXT = st.text(max_size=12) | st.sampled_from(
    ["{{ 7 * 7 }}", "{% raise %}", "{{ messages.__class__ }}", "</s>", "<|im_end|>", "%s %(x)s {0}", "\0", "a" * 3000]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CONTENTS = st.none() | TEXT | st.lists(TEXT.map(lambda text: {"type": "text", "text": text}), max_size=3)
CALLS = st.lists(st.fixed_dictionaries({"function": VALUES}) | VALUES, max_size=2) | VALUES
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
        optional={"content": CONTENTS, "name": VALUES, "tool_calls": CALLS, "x": VALUES, "y": VALUES},
    ),
    min_size=1,
    max_size=4,
)


def as_received(messages: Any) -> Any:
    """What a model server gets of them. Raises UserError where the gateway refuses."""
    return parse_body(json.dumps({"messages": messages}).encode(), ChatCompletionsRequest).messages


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendered_or_refused(name: str) -> None:
    @given(MESSAGES)
    @settings(max_examples=200, deadline=None)
    def check(messages: Any) -> None:
        with contextlib.suppress(UserError):
            ENCODERS[name].encode_messages(as_received(messages), max_tokens=ENOUGH)

    check()


@pytest.mark.rule("S6")
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXT), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_what_is_written_in_a_message_is_never_run(turns: list[tuple[str, str]]) -> None:
    received = as_received([{"role": role, "content": text} for role, text in turns])
    encoder = ENCODERS["plain"]
    rendered = encoder.decode_all(encoder.encode_messages(received, max_tokens=ENOUGH))
    assert rendered == "".join(f"[{role}|{text}]" for role, text in turns)


def test_the_built_in_model(builtin_folder: Path) -> None:
    encoder = load_prompt_encoder(builtin_folder, num_embeddings=1 << 30)

    @given(MESSAGES)
    @settings(max_examples=100, deadline=None)
    def check(messages: Any) -> None:
        with contextlib.suppress(UserError):
            assert encoder.encode_messages(as_received(messages), max_tokens=ENOUGH)

    check()
