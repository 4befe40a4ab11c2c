"""What forms an answer may have: which tokens may come, and what is found in its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vfastml.engine.dispatch_requests import TemplateOptions, TextGenerationReq, ToolUse
from vfastml.text_engine.answer_grammars import AnswerGrammars, Asked
from vfastml.text_engine.chat_dialect import ChatDialect
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.output_parsers.output_parser import OutputParser
from vfastml.text_engine.output_parsers.plain_text import PlainText
from vfastml.text_engine.output_parsers.reasoning import KeptReasoning, ReasoningMarkers, ReasoningParser
from vfastml.text_engine.tools.offered_functions import offered_tools
from vfastml.text_engine.tools.tool_grammar import MAX_CALLS, SpecialId


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """Of one request's answers."""

    matcher: TokenMatcher | None = None
    new_output_parser: Callable[[], OutputParser] | None = None
    keeps_special_tokens: bool = False
    """The parser needs to see them."""


class AnswerForms:
    """Finds the form of each request's answer, for one model. Safe to use from two threads."""

    def __init__(self, dialect: ChatDialect, special_id: SpecialId, compiler: ConstraintCompiler | None) -> None:
        """Without a compiler, constraints and forced calls are refused."""
        self._dialect = dialect
        self._special_id = special_id
        self._grammars = AnswerGrammars(dialect.tools, special_id, compiler)

    def of(self, request: TextGenerationReq, prompt_end: str) -> AnswerForm:
        """`prompt_end` is the text of the prompt's last tokens. Raises InvalidRequestError, or UnsupportedError, with
        the name of the field at fault."""
        tools = offered_tools(request)
        reasoning = None if request.messages is None else self._dialect.reasoning
        has_begun = reasoning is not None and _ends_within(reasoning, prompt_end, request.template)
        matcher = self._grammars.matcher(Asked(tools, request.constraint, reasoning, has_begun))
        splits = request.splits_reasoning
        if tools is None and not (splits and reasoning):
            return AnswerForm(matcher)
        return AnswerForm(
            matcher,
            lambda: self._parser(tools, reasoning, splits=splits, has_begun=has_begun),
            any(self._special_id(marker) is not None for marker in self._markers(tools, reasoning)),
        )

    def _parser(
        self, tools: ToolUse | None, reasoning: ReasoningMarkers | None, *, splits: bool, has_begun: bool
    ) -> OutputParser:
        answer: OutputParser = PlainText()
        if tools is not None:
            names = frozenset(tool["function"]["name"] for tool in tools.tools)
            answer = self._dialect.tools.parser(names, max_calls=MAX_CALLS if tools.parallel else 1)
        if reasoning is None:
            return answer
        return (ReasoningParser if splits else KeptReasoning)(reasoning, answer, has_begun=has_begun)

    def _markers(self, tools: ToolUse | None, reasoning: ReasoningMarkers | None) -> Iterator[str]:
        if tools is not None:
            yield from (*self._dialect.tools.markers, *self._dialect.tools.ends, self._dialect.tools.middle)
        if reasoning is not None:
            yield from (reasoning.begin, reasoning.end)


def _ends_within(reasoning: ReasoningMarkers, prompt_end: str, template: TemplateOptions) -> bool:
    """A prompt that goes on with a message may end anywhere in reasoning; any other one right at its beginning."""
    if template.continue_final_message:
        return prompt_end.rfind(reasoning.begin) > prompt_end.rfind(reasoning.end)
    return prompt_end.rstrip().endswith(reasoning.begin)
