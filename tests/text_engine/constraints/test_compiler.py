"""Constraints are kept to, whatever the model would rather say; what is wrong or hostile is refused, and soon."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema_rs import Draft202012Validator
from transformers import AutoTokenizer

from tests.text_engine.constraints.schemas import PERSON, SCHEMAS
from vfastml.engine.dispatch_requests import Constraint
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints import compiler as compiler_module
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.grammar_matcher import GrammarMatcher
from vfastml.text_engine.constraints.grammars import grammar_of

VOCAB = 49152
END = 2


@pytest.fixture(scope="module")
def tokenizer(builtin_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(builtin_folder)


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, VOCAB, (END,))


def allowed(matcher: GrammarMatcher, vocab_size: int = VOCAB) -> list[int]:
    mask = np.full(-(-vocab_size // 32), -1, dtype=np.int32)
    matcher.fill(mask)
    return np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0].tolist()


def wander(matcher: GrammarMatcher, tokenizer: Any, rng: random.Random, most: int = 400) -> str | None:
    """A random text that the matcher allows; None if it does not come to an end."""
    tokens: list[int] = []
    while not matcher.is_over and len(tokens) < most:
        token = rng.choice(allowed(matcher))
        if token == END:
            break
        matcher.accept(token)
        tokens.append(token)
    else:
        if not matcher.is_over:
            return None
    return str(tokenizer.decode(tokens))


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_random_texts_of_a_schema_are_valid(compiler: ConstraintCompiler, tokenizer: Any, number: int) -> None:
    schema = SCHEMAS[number]
    validator = Draft202012Validator(schema)
    for seed in range(4):
        matcher = compiler.matcher(Constraint("json_schema", json.dumps(schema)))
        text = wander(matcher, tokenizer, random.Random(seed))
        assert text is not None
        validator.validate(json.loads(text))


@pytest.mark.parametrize(
    "regex", ["[0-9]{3}-[a-z]{2}", "(yes|no)!?", "[a-c]{0,3}é", r"[0-9]+\.[0-9]", "^abc$", "([a-z]{1,3} ){1,3}x"]
)
def test_random_texts_of_a_regex_match_it_whole(compiler: ConstraintCompiler, tokenizer: Any, regex: str) -> None:
    ended = 0
    for seed in range(8):
        text = wander(compiler.matcher(Constraint("regex", regex)), tokenizer, random.Random(seed), 60)
        if text is not None:
            ended += 1
            assert re.fullmatch(regex, text)
    assert ended


def test_choices_are_taken_literally(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    choices = ["yes", "no (maybe)", "a|b", "1.5*", "été", "line\nbreak", "tab\t", '"', "\\d", "日本", "#x-&~"]
    constraint = Constraint("choice", json.dumps(choices))
    said = {wander(compiler.matcher(constraint), tokenizer, random.Random(seed)) for seed in range(200)}
    assert said == set(choices)


@pytest.mark.parametrize(
    "grammar",
    ['root ::= term ("+" term){0,2}\nterm ::= [0-9]', 'start: term ("+" term)~0..2\nterm: /[0-9]/'],
    ids=["EBNF", "Lark"],
)
def test_grammars(compiler: ConstraintCompiler, tokenizer: Any, grammar: str) -> None:
    for seed in range(5):
        text = wander(compiler.matcher(Constraint("grammar", grammar)), tokenizer, random.Random(seed))
        assert text is not None
        assert re.fullmatch(r"[0-9](\+[0-9]){0,2}", text)


def test_any_object(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    matcher = compiler.matcher(Constraint("json_object"))
    for token in tokenizer('{"a": [1, {"b": null}], "c": "d').input_ids:
        assert token in allowed(matcher)
        matcher.accept(token)
    assert END not in allowed(matcher)
    for token in tokenizer('"}').input_ids:
        matcher.accept(token)
    assert matcher.is_over


def test_structural_tag_leaves_the_text_free_but_for_its_parts(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    tag = {"structures": [{"begin": "<call>", "schema": PERSON, "end": "</call>"}], "triggers": ["<call"]}
    matcher = compiler.matcher(Constraint("structural_tag", json.dumps(tag)))
    for token in tokenizer("Free text, <b>then</b> a part: <call>").input_ids:
        assert token in allowed(matcher)
        matcher.accept(token)
    assert END not in allowed(matcher)
    assert tokenizer(" once").input_ids[0] not in allowed(matcher)
    for token in tokenizer('{"name": "x", "age": 5}</call> and on').input_ids:
        assert token in allowed(matcher)
        matcher.accept(token)
    assert END in allowed(matcher)


def test_special_tokens_and_tokens_without_text_are_never_allowed(tokenizer: Any) -> None:
    padded = ConstraintCompiler(tokenizer, VOCAB + 77, (END,))
    may = allowed(padded.matcher(Constraint("regex", "(.|\\n)*")), VOCAB + 77)
    assert END in may
    assert not set(range(VOCAB, VOCAB + 77)) & set(may)
    assert not (set(tokenizer.all_special_ids) - {END}) & set(may)


def test_model_with_fewer_tokens_than_the_tokenizer(tokenizer: Any) -> None:
    cut = ConstraintCompiler(tokenizer, 1000, (END,))
    may = allowed(cut.matcher(Constraint("regex", "[a-z]+")), 1000)
    assert may
    assert max(may) < 1024


def test_forks_go_their_own_way(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    first = compiler.matcher(Constraint("choice", '["ab", "ac"]'))
    [a], [b], [c] = (tokenizer(letter).input_ids for letter in "abc")
    first.accept(a)
    second = first.fork()
    first.accept(b)
    assert first.is_over
    assert set(allowed(second)) >= {b, c}
    second.accept(c)
    assert second.is_over


def test_what_is_not_allowed_is_not_accepted(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    matcher = compiler.matcher(Constraint("choice", '["ab"]'))
    with pytest.raises(InvalidRequestError):
        matcher.accept(tokenizer("z").input_ids[0])


WRONG: dict[str, tuple[str, Any]] = {
    "nested parentheses": ("regex", "(" * 30000 + "a" + ")" * 30000),
    "fewer of them": ("regex", "(" * 8000 + "a" + ")" * 8000),
    "repeated repeat": ("regex", "(a+)+$"),
    "open class": ("regex", "[a"),
    "nothing": ("regex", ""),
    "half a character": ("regex", "\ud800"),
    "too many values": ("json_schema", json.dumps({"enum": [f"value {number}" for number in range(70_000)]})),
    "too many short values": ("json_schema", json.dumps({"enum": list(range(20_000))})),
    "endless reference": ("json_schema", '{"$ref": "#"}'),
    "circle of references": ("json_schema", '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'),
    "elsewhere": ("json_schema", '{"$ref": "http://127.0.0.1/schema.json"}'),
    "deep": ("json_schema", '{"items":' * 30000 + "{}" + "}" * 30000),
    "deeper than allowed": ("json_schema", '{"items":' * 100 + "{}" + "}" * 100),
    "no JSON": ("json_schema", "{"),
    "a number": ("json_schema", "5"),
    "never": ("json_schema", "false"),
    "unknown format": ("json_schema", '{"type": "string", "format": "nosuch"}'),
    "unknown type": ("json_schema", '{"type": "nosuch"}'),
    "not done": ("json_schema", '{"not": {"type": "string"}}'),
    "many properties": ("json_schema", json.dumps({"properties": {f"p{number}": {} for number in range(9000)}})),
    "no choices": ("choice", "[]"),
    "empty choice": ("choice", '[""]'),
    "no list": ("choice", '"a"'),
    "too many choices": ("choice", json.dumps([str(number) for number in range(10_001)])),
    "endless rule": ("grammar", "start: start"),
    "no grammar": ("grammar", "root ::= ((((("),
    "long grammar": ("grammar", "start: " + " | ".join(f'"x{number}"' for number in range(60_000))),
    "no structures": ("structural_tag", "[]"),
    "no trigger": ("structural_tag", '{"structures": [{"begin": "x", "schema": {}, "end": ""}], "triggers": ["y"]}'),
}


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_and_hostile_ones_are_refused(compiler: ConstraintCompiler, name: str) -> None:
    kind, text = WRONG[name]
    with pytest.raises(InvalidRequestError) as refused:
        compiler.matcher(Constraint(kind, text))
    assert refused.value.param == "structured_outputs"
    assert len(refused.value.message) < 300


@pytest.mark.rule("S6")
def test_what_was_compiled_is_kept_up_to_a_bound(compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_module, "_CACHED", 3)
    asked = [Constraint("regex", f"a{{{count}}}") for count in (1, 2, 3, 1, 4, 1, 2)]
    of_grammar = {grammar_of(constraint): constraint for constraint in asked}
    compiled: list[Constraint] = []
    compile_one = compiler._compile
    monkeypatch.setattr(
        compiler, "_compile", lambda one, what: (compiled.append(of_grammar[one]), compile_one(one, what))[1]
    )
    compiler._compiled.clear()
    for constraint in asked:
        compiler.matcher(constraint)
    assert [asked.index(one) for one in compiled] == [0, 1, 2, 4, 1]
    assert len(compiler._compiled) == 3


def test_an_integer_comes_to_its_end(compiler: ConstraintCompiler, tokenizer: Any) -> None:
    matcher = compiler.matcher(Constraint("json_schema", '{"type": "integer"}'))
    (nine,) = tokenizer.encode("9", add_special_tokens=False)
    digits = 0
    while not matcher.is_over and digits < 30:
        mask = np.zeros(-(-len(tokenizer) // 32), dtype=np.int32)
        matcher.fill(mask)
        if not mask[nine // 32] >> (nine % 32) & 1:
            break
        matcher.accept(nine)
        digits += 1
    assert digits == 18
