"""The engine in one's own process: what it generates, in what order, and that nothing stays behind."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import assert_same_tokens, generate, load_oracle
from vfastml import (
    LLM,
    BeamSearch,
    Constraint,
    SamplingParams,
    TextGenerationForward,
    TextGenerationMessage,
    ToolUse,
)
from vfastml.errors import InternalServerError, InvalidRequestError, UnsupportedError
from vfastml.model_store import ModelStoreError
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.text_engine import TextEngine

MAX_LEN, MAX_SEQS = 96, 4
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [[7 * number % 256 + 1 for number in range(start, start + length)] for start, length in enumerate((3, 30, 9))]
CHAT = [{"role": "user", "content": "hi"}]


def load(folder: Path, **options: Any) -> LLM:
    config = EngineConfig(max_model_len=MAX_LEN, max_num_seqs=MAX_SEQS, kv_cache_memory=500_000, measure_limits="never")
    settings: dict[str, Any] = {
        "model_device": "cpu",
        "model_load_kwargs": {"dtype": "float32"},
        "engine_config": config,
    }
    return LLM(str(folder), **(settings | options))


@pytest.fixture(scope="module")
def shared(tiny_models: dict[str, Path]) -> LLM:
    return load(tiny_models["llama"])


@pytest.fixture
def llm(shared: LLM) -> Iterator[LLM]:
    """Every test leaves the engine empty."""
    yield shared
    assert_empty(shared)


def engine_of(llm: LLM) -> TextEngine:
    return llm._engine._engine


def assert_empty(llm: LLM) -> None:
    engine = engine_of(llm)
    engine.check_integrity()
    load = engine.load()
    assert (load.running, load.waiting, load.open_requests) == (0, 0, 0)
    assert load.free_blocks == load.total_blocks
    assert not llm._engine._open


# -- what comes out


def test_equals_generate_in_the_order_of_the_prompts(llm: LLM, tiny_models: dict[str, Path]) -> None:
    """More prompts than the batch has seats: the rest waits."""
    oracle = load_oracle(tiny_models["llama"])
    prompts = PROMPTS * 4
    results = llm.generate(prompts, GREEDY)
    assert [result.prompt_token_ids for result in results] == prompts
    expected = [generate(oracle, prompt, 12, ignore_eos=True) for prompt in PROMPTS] * 4
    for prompt, result, tokens in zip(prompts, results, expected, strict=True):
        [choice] = result.choices
        assert choice.token_ids is not None
        assert_same_tokens(oracle, prompt, choice.token_ids, tokens)
        assert (choice.finish_reason, result.usage.completion_tokens) == ("length", 12)


def test_one_text_is_a_list_of_one(llm: LLM) -> None:
    [result] = llm.generate("abc", GREEDY)
    assert result.text == result.choices[0].text == llm.generate(["abc"], GREEDY)[0].text
    assert llm.generate([]) == []


def test_choices_and_scores(llm: LLM) -> None:
    params = SamplingParams(seed=5, max_tokens=6, ignore_eos=True, output_scores=True)
    for result in llm.generate(["abc", "def"], params, n=3):
        assert [choice.index for choice in result.choices] == [0, 1, 2]
        assert len({tuple(choice.token_ids or ()) for choice in result.choices}) == 3
        assert all(choice.scores is not None and len(choice.scores) == 6 for choice in result.choices)


def test_forward_params_say_the_same(llm: LLM) -> None:
    params = TextGenerationForward(temperature=0.0, max_tokens=4, num_generations=2, stream=True)
    [result] = llm.generate("abc", params)
    assert len(result.choices) == 2
    assert result.text == llm.generate("abc", SamplingParams(temperature=0.0, max_tokens=4))[0].text


def test_forward_kwargs_are_defaults(tiny_models: dict[str, Path]) -> None:
    for kwargs in ({"max_tokens": 3, "num_generations": 2}, TextGenerationForward(max_tokens=3, num_generations=2)):
        llm = load(tiny_models["llama"], model_forward_kwargs=kwargs)
        [result] = llm.generate("abc", SamplingParams(ignore_eos=True))
        assert (len(result.choices), result.usage.completion_tokens) == (2, 6)
        [result] = llm.generate("abc", SamplingParams(ignore_eos=True, max_tokens=1), n=1)
        assert result.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("conversations", "count"),
    [
        ("hi", 1),
        (CHAT, 1),
        (CHAT[0], 1),
        ([TextGenerationMessage("user", "hi")], 1),
        (["hi", "hi"], 2),
        ([CHAT, CHAT], 2),
        ([CHAT, "hi", [TextGenerationMessage("user", "hi")]], 3),
        ([], 0),
    ],
)
def test_each_form_of_conversations(llm: LLM, conversations: Any, count: int) -> None:
    expected = llm.generate("user: hi\nassistant:", GREEDY)[0].text
    assert [result.text for result in llm.chat(conversations, GREEDY)] == [expected] * count


def test_builtin_model_knows_its_capitals(builtin_folder: Path) -> None:
    llm = LLM(engine_config=EngineConfig(kv_cache_memory=100_000_000))
    params = SamplingParams(temperature=0.0, max_tokens=20)
    assert "Paris" in llm.chat("What is the capital of France?", params)[0].text
    assert "Paris" in "".join(llm.stream("What is the capital of France?", params))
    assert_empty(llm)


# -- streams


def test_pieces_add_up_to_the_whole(llm: LLM) -> None:
    pieces = list(llm.stream(CHAT, GREEDY))
    assert len(pieces) > 3
    assert "".join(pieces) == llm.chat(CHAT, GREEDY)[0].text


def test_closed_stream_is_cancelled(llm: LLM) -> None:
    stream = llm.stream("hi", GREEDY)
    assert_empty(llm)  # nothing is asked of the engine before the first piece
    next(stream)
    assert engine_of(llm).load().running == 1
    stream.close()
    assert_empty(llm)


def test_dropped_stream_is_cancelled(llm: LLM) -> None:
    for piece in llm.stream("hi", GREEDY):
        assert piece
        break
    assert_empty(llm)
    llm.stream("hi", GREEDY)


def test_calls_between_the_pieces_of_streams(llm: LLM) -> None:
    expected = "".join(llm.stream("hi", GREEDY))
    first, second = llm.stream("hi", GREEDY), llm.stream("hi", GREEDY)
    texts = [next(first), next(second)]
    texts[0] += next(first)
    assert llm.chat("hi", GREEDY)[0].text == expected
    assert [text + "".join(rest) for text, rest in zip(texts, (first, second), strict=True)] == [expected] * 2


def test_stream_that_ends_in_the_middle_of_a_step(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector may do it."""
    stream = llm.stream("hi", GREEDY)
    next(stream)
    schedule = Scheduler.schedule

    def closing(scheduler: Scheduler) -> Any:
        batch = schedule(scheduler)
        stream.close()
        return batch

    monkeypatch.setattr(Scheduler, "schedule", closing)
    assert llm.generate("abc", GREEDY)[0].usage.completion_tokens == 12


# -- what is refused


@pytest.mark.parametrize(
    "bad", ["", [], [1, -1], [1, 259], "x" * MAX_LEN, [1] * MAX_LEN, ["x"], None, 5, b"ab", [True]]
)
def test_bad_prompt_among_many_is_named_and_nothing_runs(llm: LLM, bad: Any) -> None:
    steps = engine_of(llm).load().steps
    with pytest.raises(InvalidRequestError, match=r"^prompts\[1\]: "):
        llm.generate(["a", bad, "b", ""])
    assert engine_of(llm).load().steps == steps


def test_bad_conversation_among_many_is_named(llm: LLM) -> None:
    for bad in ([{"role": "robot", "content": "x"}], 5, [CHAT, "x"]):
        with pytest.raises(InvalidRequestError, match=r"^conversations\[2\]: "):
            llm.chat(["a", CHAT, bad])  # type: ignore[list-item]


def test_code_of_a_refusal_is_kept(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llm.generate(["x" * 1000])
    assert caught.value.code == "context_length_exceeded"


def test_parameters_that_cannot_be(llm: LLM) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"params": SamplingParams(top_p=2.0)}, "'top_p' must"),
        ({"params": SamplingParams(logit_bias={9999: 1.0})}, "'logit_bias' must"),
        ({"params": {"top_p": 0.5}}, "'params' must"),
        ({"n": 0}, "'n' must"),
        ({"n": MAX_SEQS + 1}, "'n' must"),
        ({"n": 2, "params": TextGenerationForward(num_generations=3)}, "'num_generations'"),
    ]
    for arguments, words in cases:
        with pytest.raises(InvalidRequestError, match=words):
            llm.generate("x", **arguments)


def test_stream_is_of_one_text(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="one text"):
        llm.stream("hi", TextGenerationForward(num_generations=2))
    with pytest.raises(InvalidRequestError, match="one conversation"):
        llm.stream(["hi", "ho"])  # type: ignore[list-item]


# -- what breaks


def test_ctrl_c_cancels_all_and_the_next_call_works(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes at the worst place: a block is handed out, and nobody has written down to whom."""
    handler = signal.getsignal(signal.SIGINT)
    take = BlockManager._take

    def interrupted(blocks: BlockManager) -> int:
        block = take(blocks)
        signal.raise_signal(signal.SIGINT)
        return block

    with monkeypatch.context() as patch:
        patch.setattr(BlockManager, "_take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPTS * 3, GREEDY)
        assert_empty(llm)
        stream = llm.stream("hi", GREEDY)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    assert_empty(llm)
    assert signal.getsignal(signal.SIGINT) is handler
    assert llm.generate("abc", GREEDY)[0].usage.completion_tokens == 12


def test_model_that_breaks_leaves_nothing_behind(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of cheese")

    with monkeypatch.context() as patch:
        patch.setattr(engine_of(llm)._runner, "run", broken)
        with pytest.raises(RuntimeError, match="cheese"):
            llm.generate(PROMPTS, GREEDY)
    assert_empty(llm)
    assert llm.generate("abc", GREEDY)[0].usage.completion_tokens == 12


def test_request_that_fails_is_an_error(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of cheese")

    with monkeypatch.context() as patch:
        patch.setattr(TextEngine, "_advance", broken)
        with pytest.raises(InternalServerError):
            llm.generate(PROMPTS, GREEDY)
        with pytest.raises(InternalServerError):
            list(llm.stream("hi", GREEDY))


# -- loading, and what is shown


def test_loading_says_on_stderr_how_far_it_is(tiny_models: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    llm = load(tiny_models["llama"])
    llm.generate("abc", GREEDY)
    out, err = capfd.readouterr()
    assert out == ""
    said = [line.removeprefix("vfastml: ") for line in err.splitlines() if line.startswith("vfastml: ")]
    assert said == [
        "loading weights",
        "loading the tokenizer",
        "checking the model",
        "warming up",
        "llama is ready on cpu in float32",
    ]
    assert "Generating" not in err  # no terminal
    assert repr(llm) == "LLM('llama', device='cpu', dtype='float32')"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False)])
def test_progress_on_a_terminal(llm: LLM, monkeypatch: pytest.MonkeyPatch, progress: bool, shown: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    llm.generate(PROMPTS, GREEDY, progress=progress)
    assert ("3/3" in terminal.getvalue()) == shown
    assert ("tokens/s" in terminal.getvalue()) == shown


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model_load_kwargs": {"trust_remote_code": True}}, UnsupportedError, "trust_remote_code"),
        ({"model_load_kwargs": {"revision": "main"}}, ModelStoreError, "not on a hub"),
        ({"model_load_kwargs": {"dtype": "int3"}}, InvalidRequestError, "int3"),
        ({"model_forward_kwargs": {"beams": 2}}, InvalidRequestError, "beams"),
        ({"model_device": "abacus"}, InvalidRequestError, "abacus"),
        ({"model_device": "cpu", "model_load_kwargs": {"device_map": "auto"}}, InvalidRequestError, "device_map"),
    ],
)
def test_settings_that_cannot_work(
    tiny_models: dict[str, Path], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(tiny_models["llama"], **options)


def test_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelStoreError, match="no folder"):
        LLM(str(tmp_path / "nothing"))


# -- beams, constraints, calls


def test_a_constraint_holds(llm: LLM) -> None:
    (result,) = llm.generate("Answer: ", GREEDY, constraint=Constraint("choice", '["yes", "no"]'))
    assert result.text in ("yes", "no")


def test_beams_have_scores_and_the_best_is_first(llm: LLM) -> None:
    (result,) = llm.generate("Once upon a time", SamplingParams(max_tokens=6), n=2, beams=BeamSearch(3))
    first, second = result.choices
    assert first.score is not None
    assert second.score is not None
    assert first.score >= second.score


def test_a_function_is_called(tiny_models: dict[str, Path]) -> None:
    config = EngineConfig(max_model_len=1024, max_num_seqs=2, kv_cache_memory=5_000_000, measure_limits="never")
    llm = load(tiny_models["llama"], engine_config=config)
    function = {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}}}
    use = ToolUse([{"type": "function", "function": function}], "required", parallel=False)
    (result,) = llm.chat("What time is it?", SamplingParams(temperature=0, max_tokens=60), tool_use=use)
    (call,) = result.choices[0].tool_calls
    assert call.name == "now"
    assert set(json.loads(call.arguments)) <= {"zone"}
    assert (result.text, result.choices[0].finish_reason) == ("", "tool_calls")
