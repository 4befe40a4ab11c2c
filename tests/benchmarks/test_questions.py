from __future__ import annotations

from collections import Counter

from benchmarks.prompts import LengthFit, Lengths
from benchmarks.questions import QuestionPrompts, read_questions

WORKLOAD = QuestionPrompts(Lengths(input_tokens=1, output_tokens=20, range_ratio=0.5))


def test_eight_categories_of_two_turns_each() -> None:
    questions = read_questions()
    assert Counter(question.category for question in questions).keys() == {
        *("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
    }
    assert all(question.first and question.follow_up for question in questions)
    assert len({question.first for question in questions}) == len(questions) >= 40


def test_every_question_comes_before_any_comes_again_and_then_begins_otherwise() -> None:
    questions = read_questions()
    prompts = WORKLOAD.prompts(2 * len(questions), LengthFit(), seed=3)
    for half in (prompts[: len(questions)], prompts[len(questions) :]):
        assert {prompt.text.split("\n\n")[1] for prompt in half} == {question.first for question in questions}
    assert len({prompt.text.split("\n\n")[0] for prompt in prompts}) == len(prompts)
    assert all(10 <= prompt.output_tokens <= 30 for prompt in prompts)


def test_prompts_follow_the_seed() -> None:
    assert WORKLOAD.prompts(20, LengthFit(), 1) == WORKLOAD.prompts(20, LengthFit(), 1)
    first, second = ({prompt.text for prompt in WORKLOAD.prompts(60, LengthFit(), seed)} for seed in (1, 2))
    assert not first & second
