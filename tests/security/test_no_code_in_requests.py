"""S6: a request brings no code, and what it does to the operator's template has an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client, engine  # noqa: F401
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_requests import TemplateOptions
from vfastml.errors import InvalidRequestError
from vfastml.text_engine import bounded_rendering
from vfastml.text_engine.prompt_encoder import PromptEncoder

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": "x"},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
}

CODE: list[tuple[str, Any]] = [
    ("chat_template", "{{ cycler.__init__.__globals__.os.popen('touch canary') }}"),
    ("chat_template", "../../templates/evil.jinja"),
    ("logits_processors", ["os.system"]),
    ("custom_logit_processor", "gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"),
    ("custom_params", {"a": 1}),
    ("vllm_xargs", {"a": "b"}),
    ("mm_processor_kwargs", {"a": "b"}),
    ("guided_decoding_backend", "outlines"),
    ("lora_path", "/tmp/adapter"),
    ("prompt_embeds", "gASVHAAAAAAAAAA="),
    ("input_embeds", [[0.5]]),
]


@pytest.mark.rule("S6")
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("field", "value"), CODE, ids=[f"{field}-{number}" for number, (field, _) in enumerate(CODE)])
async def test_code_is_refused_by_name(
    client: httpx.AsyncClient,  # noqa: F811
    engine: FakeDispatchEngine,  # noqa: F811
    path: str,
    field: str,
    value: Any,
) -> None:
    response = await client.post(path, json={**BODIES[path], field: value})
    if path == "/v1/completions" and field in ("chat_template", "mm_processor_kwargs"):
        assert response.status_code == 200  # nothing is rendered there: it means nothing
        return
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field)
    assert engine.requests == []


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", ["chat_template", "messages", "tokenize", "range", "self", "__class__", "unknown"])
def test_only_what_the_template_knows_reaches_it(name: str) -> None:
    encoder = PromptEncoder(byte_tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}{{ known }}"))
    assert encoder.render("hi", TemplateOptions({"known": "!"})) == "hi!"
    with pytest.raises(InvalidRequestError):
        encoder.render("hi", TemplateOptions({name: "x"}))


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}",
    "{{ lipsum.__globals__['os'].system('touch canary') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages[0].__reduce__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.rule("S6")
@pytest.mark.parametrize("template", ESCAPES)
def test_an_operators_template_stays_in_its_sandbox(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = PromptEncoder(byte_tokenizer(template))
    try:
        rendered = encoder.render("hello")
    except InvalidRequestError as refused:
        rendered = refused.message
    assert "root:" not in rendered
    assert "<class" not in rendered
    assert "subclasses" not in rendered or "unsafe" in rendered
    assert list(tmp_path.iterdir()) == []


ENDLESS = {
    "every pair of messages": "{% for a in messages %}{% for b in messages %}{% set x = b %}{% endfor %}{% endfor %}",
    "ranges in ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "as often as the message says": "{% for a in range(messages[0].n) %}{% for b in range(messages[0].n) %}"
    "{% set x = a %}{% endfor %}{% endfor %}",
    "for each character": "{% for a in messages[0].content %}{% for b in messages[0].content %}{{ '' }}{% endfor %}"
    "{% endfor %}",
    "a macro that calls itself": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_goes_round_and_round_has_an_end(name: str) -> None:
    encoder = PromptEncoder(byte_tokenizer(ENDLESS[name]))
    messages = [{"role": "user", "content": "x" * 5000, "n": 99_000}, *[{"role": "user", "content": "x"}] * 4000]
    with pytest.raises(InvalidRequestError) as refused:
        encoder.render(messages, TemplateOptions())
    assert refused.value.param == "messages"


def test_the_longest_chat_of_an_ordinary_template_is_far_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ 'system' }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    )
    monkeypatch.setattr(bounded_rendering, "MOST_LINES", bounded_rendering.MOST_LINES // 10)
    messages = [{"role": "user", "content": "x"}] * 4096
    rendered = PromptEncoder(byte_tokenizer(template)).render(messages, TemplateOptions())
    assert rendered.count("<|im_start|>") == 4096
