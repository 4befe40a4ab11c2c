"""`vfastml chat`: one answer, or a conversation, with a service or with a model in this process."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from importlib import import_module

from prebuilt_apps import flag_types
from prebuilt_apps.cli.conversation import Answer, Conversation
from prebuilt_apps.cli.local_model import answer_of_local_model
from prebuilt_apps.cli.service_client import ServiceClient, add_service_flags, default_url, key_of
from prebuilt_apps.cli.service_error import NobodyAnswersError, ServiceError
from prebuilt_apps.cli.terminal import complain, is_conversation, show, tolerate_any_text
from prebuilt_apps.commands import warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from vfastml.model_store import DEFAULT_MODEL

_PROG = "python -m prebuilt_apps.cli.chat"
_PROMPT = "> "
_HELP = "/reset forgets what was said, /exit or Ctrl-D leaves, Ctrl-C stops an answer."
_STOPS_TO_LEAVE = 2
"""How many Ctrl-C, one after the other, where nothing runs that they could stop."""


def build_parser(prog: str = _PROG) -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog,
        "Answers MESSAGE and ends; without one, holds a conversation, or takes each line of a pipe for a message.",
        epilog=f"In a conversation: {_HELP}",
    )
    add = parser.add_argument
    add("message", nargs="*", metavar="MESSAGE", help="what to say; several words are joined")
    add_service_flags(parser)
    add("--model", metavar="NAME", help="served name of the model; may be left out where one is served")
    add("--system", metavar="TEXT", help="the system message")
    add("--temperature", type=flag_types.temperature, metavar="T", help="0 always takes the most probable token")
    add("--max-tokens", type=flag_types.positive, metavar="N", help="most tokens in an answer")
    add(
        "--model-uri",
        metavar="URI",
        help="what to load in this process if no --url is given and nobody answers at the default one; "
        f"a service is asked for the model of that uri (default: {DEFAULT_MODEL})",
    )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Returns 0, or 1 if an answer failed; a conversation at a terminal always ends with 0."""
    parser = build_parser(prog)
    options = parser.parse(argv)
    warn_of_unknown_variables(parser)
    tolerate_any_text()
    client = ServiceClient(options.url or default_url(), key_of(options))
    with closing(client):
        try:
            chat = _Chat(prog, Conversation(_answer(options, client, prog), options.system))
        except ServiceError as error:
            complain(prog, str(error))
            return 1
        if options.message:
            return 0 if chat.answer(" ".join(options.message)) else 1
        return chat.converse() if is_conversation() else chat.answer_lines(sys.stdin)


def _answer(options: argparse.Namespace, client: ServiceClient, prog: str) -> Answer:
    """The service's, or where nobody listens and nobody said where, a model's in this process."""
    try:
        client.check_answers()
    except NobodyAnswersError as error:
        if options.url:
            raise ServiceError(f"{error} Start one with `vfastml serve`, or check --url.") from error
        if options.model:
            raise ServiceError(f"{error} --model names one of a service: load one here with --model-uri.") from error
        uri = options.model_uri or DEFAULT_MODEL
        complain(prog, f"nobody listens at {client.url}: loading {uri} in this process")
        return answer_of_local_model(uri, options.temperature, options.max_tokens, prog)
    asked = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    return lambda messages: client.chat(messages, model=options.model or options.model_uri, **asked)


class _Chat:
    """A conversation between whoever sits at stdin and stdout, and a model."""

    def __init__(self, prog: str, conversation: Conversation) -> None:
        self._prog = prog
        self._conversation = conversation
        self._commands: dict[str, Callable[[], None]] = {"/reset": conversation.reset}

    def answer(self, text: str) -> bool:
        """Shows the answer. False if it failed: the reason is on stderr then."""
        last = ""
        try:
            with closing(self._conversation.say(text)) as pieces:
                for last in pieces:
                    show(last)
        except ServiceError as error:
            show("\n" if last else "")
            complain(self._prog, str(error))
            return False
        show("" if last.endswith("\n") else "\n")
        return True

    def answer_lines(self, lines: Iterable[str]) -> int:
        """Each line that is not blank is a turn."""
        failed = 0
        for line in map(str.strip, lines):
            if line == "/exit":
                break
            if line and not self._obeyed(line):
                failed += not self.answer(line)
        return min(failed, 1)

    def converse(self) -> int:
        """Until one leaves."""
        with contextlib.suppress(ImportError):  # Python can be built without it; lines are then edited less well
            import_module("readline")
        show(f"{_HELP}\n")
        stops = 0
        while stops < _STOPS_TO_LEAVE:
            try:
                line = input(_PROMPT).strip()
            except EOFError:
                show("\n")
                return 0
            except KeyboardInterrupt:
                stops += 1
                show("\n" if stops == _STOPS_TO_LEAVE else "\nCtrl-C again leaves.\n")
                continue
            stops = 0
            if line == "/exit":
                return 0
            self._take_turn(line)
        return 0

    def _take_turn(self, line: str) -> None:
        try:
            if self._obeyed(line):
                return
            if re.fullmatch("/[a-z]+", line):
                show(f"{_HELP}\n")
            elif line:
                self.answer(line)
        except KeyboardInterrupt:
            show("\n")

    def _obeyed(self, line: str) -> bool:
        command = self._commands.get(line)
        if command is not None:
            command()
        return command is not None


if __name__ == "__main__":
    sys.exit(main())
