"""What keeps an answer to its form: reasoning first, if the model reasons, then calls, what a constraint says, or text
with calls in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vfastml.engine.dispatch_requests import Constraint, ToolUse
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.constraints.compiler import ConstraintCompiler
from vfastml.text_engine.constraints.grammars import PARAM, grammar_of
from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.output_parsers.reasoning import ReasoningMarkers
from vfastml.text_engine.tools.offered_functions import OfferedFunction, offered_functions
from vfastml.text_engine.tools.tool_format import ToolFormat
from vfastml.text_engine.tools.tool_grammar import SpecialId, ToolGrammar

_ANSWER = "answer"
"""Name of the constraint's own grammar, beside the main one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form of an answer depends on."""

    tools: ToolUse | None = None
    constraint: Constraint | None = None
    reasoning: ReasoningMarkers | None = None
    has_begun: bool = False
    """The prompt ends within reasoning."""


class AnswerGrammars:
    """Of one model. Safe to use from two threads."""

    def __init__(self, tool_format: ToolFormat, special_id: SpecialId, compiler: ConstraintCompiler | None) -> None:
        """Without a compiler, constraints and forced calls are refused."""
        self._tool_format = tool_format
        self._special_id = special_id
        self._compiler = compiler

    def matcher(self, asked: Asked) -> TokenMatcher | None:
        """None: the answer may be anything. Raises InvalidRequestError, or UnsupportedError, with the name of the field
        at fault."""
        if asked.tools is None and asked.constraint is None:
            return None
        try:
            return self._compiled(self._compiler_for(), asked)
        except UnsupportedError as error:
            if asked.constraint is not None:
                raise
            if asked.tools is not None and asked.tools.choice == "required":
                raise UnsupportedError("Forced calls are not supported by this model.", param="tool_choice") from error
            return None  # calls are still found, if the model makes any

    def _compiler_for(self) -> ConstraintCompiler:
        if self._compiler is None:
            raise UnsupportedError("Constraints are not supported by this server.", param=PARAM)
        return self._compiler

    def _compiled(self, compiler: ConstraintCompiler, asked: Asked) -> TokenMatcher | None:
        if asked.constraint is not None:
            alone = compiler.matcher(asked.constraint)  # what is wrong with it is said of it
            if asked.tools is None and asked.reasoning is None:
                return alone
        functions = [] if asked.tools is None else offered_functions(asked.tools, compiler)
        try:
            return self._joined(compiler, functions, asked)
        except InvalidRequestError:
            # Each was fine by itself: together, or in this form, they are more than the compiler takes.
            return self._loosened(compiler, functions, asked)

    def _loosened(
        self, compiler: ConstraintCompiler, functions: list[OfferedFunction], asked: Asked
    ) -> TokenMatcher | None:
        try:
            return self._joined(compiler, [function.with_any_arguments() for function in functions], asked)
        except InvalidRequestError as error:
            if asked.tools is not None and asked.tools.choice == "auto" and asked.constraint is None:
                return None
            message = "The tools are too many, or their parameters too complex, to be kept to."
            raise InvalidRequestError(message, param="tools") from error

    def _joined(
        self, compiler: ConstraintCompiler, functions: list[OfferedFunction], asked: Asked
    ) -> TokenMatcher | None:
        body = self._body(asked.tools, functions, asked.constraint)
        if body is None:
            return None
        thoughts = "" if asked.reasoning is None else self._thoughts(asked.reasoning, has_begun=asked.has_begun)
        lark = f"%llguidance {{}}\nstart: {'thoughts body' if thoughts else 'body'}\nbody: {body}\n{thoughts}"
        has_answer = f"@{_ANSWER}" in body.split("\n")[0]
        return compiler.of_grammar(_beside(lark, asked.constraint if has_answer else None))

    def _body(
        self, tools: ToolUse | None, functions: list[OfferedFunction], constraint: Constraint | None
    ) -> str | None:
        """An expression, and on further lines its rules; None: the answer may be anything."""
        if tools is None:
            return None if constraint is None else f"@{_ANSWER}"
        may_be_more = tools.parallel and tools.name is None and self._tool_format.takes_several
        grammar = ToolGrammar(self._tool_format, functions, self._special_id, parallel=may_be_more)
        if tools.choice == "required":
            return f"calls\n{grammar.calls()}"
        if constraint is not None:
            return f"calls | @{_ANSWER}\n{grammar.calls()}"
        rules = grammar.answer_with_calls()
        return None if rules is None else f"answer_with_calls\n{rules}"

    def _thoughts(self, reasoning: ReasoningMarkers, *, has_begun: bool) -> str:
        """The rule of what comes before the answer."""
        begin, end = (self._special_id(marker) for marker in (reasoning.begin, reasoning.end))
        first = json.dumps(reasoning.begin) if begin is None else f"<[{begin}]>"
        thinking = "lazy_thinking" if end is None else f"/(.|\\n)*/ <[{end}]>"
        rules = f"thoughts: {thinking} GAP" if has_begun else f"thoughts: (GAP {first} {thinking} GAP)?"
        rules += "\nGAP: /\\n{0,2}/"
        if end is None:
            rules += f"\nlazy_thinking[suffix={json.dumps(reasoning.end)}]: /(.|\\n)*/"
        return rules


def _beside(lark: str, constraint: Constraint | None) -> str:
    """The grammar, with the constraint's own beside it."""
    main: dict[str, Any] = {"name": "main", "lark_grammar": lark}
    if constraint is None:
        return json.dumps({"grammars": [main]})
    grammar = grammar_of(constraint)
    parts = json.loads(grammar)["grammars"] if grammar.startswith("{") else [{"lark_grammar": grammar}]
    return json.dumps({"grammars": [main, {**parts[0], "name": _ANSWER}, *parts[1:]]})
