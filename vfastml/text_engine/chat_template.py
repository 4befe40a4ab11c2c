"""A model's chat template: from messages to the text of a prompt."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta
from transformers import PreTrainedTokenizerBase

from vfastml.engine.dispatch_requests import TemplateOptions
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.bounded_rendering import bounded_rendering
from vfastml.text_engine.tools.tool_format import ToolFormat
from vfastml.text_engine.tools.tool_prompt import with_tools_as_text

logger = logging.getLogger(__name__)

_TEXT_PARTS = ("text", "refusal")
"""Types of content parts; the text is under the same name."""
_REASONING = ("reasoning_content", "reasoning")
"""Names of what an earlier answer had thought."""
_OWN_NAMES = frozenset(
    {
        *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
        *Environment().globals,
        "messages",
        "raise_exception",
        "strftime_now",
    }
)
"""That rendering sets itself."""

Message = dict[str, Any]


class ChatTemplate:
    """Renders messages. Safe to use from two threads.

    Without a template, messages become lines of `role: content` and a last line `assistant:`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None, tool_format: ToolFormat) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._tool_format = tool_format
        self._variables = _variables(template or "") - set(tokenizer.special_tokens_map)
        self.knows_tools = "tools" in self._variables
        """Else they are described in plain messages."""

    def check(self) -> None:
        """Raises InvalidRequestError for what is no template at all; whether it takes these or those messages, only
        they can show."""
        try:
            with bounded_rendering():
                self._rendered([{"role": "user", "content": "Hello"}], TemplateOptions(), ())
        except TemplateSyntaxError as error:
            where = f"in line {error.lineno}: {error.message}"
            raise InvalidRequestError(f"The chat template has an error {where}") from error
        except Exception as error:
            logger.info("the chat template does not take a first message of the user's: %r", error)

    def render(self, messages: Sequence[Message] | str, options: TemplateOptions, tools: Sequence[Message] = ()) -> str:
        """The prompt's text. Raises InvalidRequestError where the template refuses the messages, and for arguments
        that it does not know."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        self._check_options(options)
        plain = [self._plain(message) for message in messages]
        if not self.knows_tools:
            plain, tools = self._with_tools_as_text(plain, tools), ()
        if self._template is None:
            return _lines(plain, options)
        try:
            with bounded_rendering():
                return self._rendered(plain, options, tools)
        except InvalidRequestError:
            raise
        except TemplateError as error:  # the template's own words, such as "roles must alternate"
            reason = str(error)[:200]
            raise InvalidRequestError(f"The model's chat template refused: {reason}", param="messages") from error
        except Exception as error:
            # Its name alone: what it says may have words of the messages.
            logger.info("the chat template failed with a %s", type(error).__name__)
            raise InvalidRequestError("The messages do not fit the model's chat template.", param="messages") from error

    def _rendered(self, messages: list[Message], options: TemplateOptions, tools: Sequence[Message]) -> str:
        try:
            return self._applied(messages, options, tools)
        except TypeError:
            # Most templates want the arguments of calls as objects, a few as the JSON that clients send.
            if not any("tool_calls" in message for message in messages):
                raise
            return self._applied([_with_json_arguments(message) for message in messages], options, tools)

    def _applied(self, messages: list[Message], options: TemplateOptions, tools: Sequence[Message]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                tools=list(tools) or None,
                documents=options.documents,
                tokenize=False,
                add_generation_prompt=options.add_generation_prompt and not options.continue_final_message,
                continue_final_message=options.continue_final_message,
                **self._arguments(options),
            )
        )

    def _check_options(self, options: TemplateOptions) -> None:
        for name in options.kwargs:
            if name in _OWN_NAMES or name not in self._variables:
                message = "'chat_template_kwargs' may only have what the model's chat template knows."
                raise InvalidRequestError(message, param="chat_template_kwargs")
        if options.documents and "documents" not in self._variables:
            raise UnsupportedError("This model's chat template does not take 'documents'.", param="documents")

    def _arguments(self, options: TemplateOptions) -> dict[str, Any]:
        """What the client says, and what its effort means to this template."""
        effort, hints = options.reasoning_effort, {}
        if effort is not None:
            hints = {"reasoning_effort": effort, "enable_thinking": effort != "none", "thinking": effort != "none"}
        known = {name: value for name, value in hints.items() if name in self._variables}
        return {**known, **options.kwargs}

    def _plain(self, message: Any) -> Message:
        """Text parts joined, absent content empty, `developer` as `system` unless the template knows it, arguments of
        calls as objects, reasoning under both of its names."""
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str):
            raise InvalidRequestError("Each message must be an object with a 'role'.", param="messages")
        if role == "developer" and "developer" not in (self._template or ""):
            role = "system"
        plain = {**message, "role": role, "content": _joined(message.get("content"))}
        calls = plain.pop("tool_calls", None)
        if calls:
            plain["tool_calls"] = [_call(call) for call in calls] if isinstance(calls, list) else calls
        reasoning = next((plain[name] for name in _REASONING if isinstance(plain.get(name), str)), None)
        return plain if reasoning is None else {**plain, **dict.fromkeys(_REASONING, reasoning)}

    def _with_tools_as_text(self, messages: list[Message], tools: Sequence[Message]) -> list[Message]:
        try:
            return with_tools_as_text(messages, tools, self._tool_format)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            message = "Each of a message's 'tool_calls' must have a 'function' with a 'name' and 'arguments'."
            raise InvalidRequestError(message, param="messages") from error


def _variables(template: str) -> frozenset[str]:
    """Names that the template takes from outside."""
    try:
        return frozenset(
            meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template))
        )
    except TemplateError:  # tags of transformers' own
        return frozenset(re.findall(r"\w+", template))


def _lines(messages: list[Message], options: TemplateOptions) -> str:
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    opens = options.add_generation_prompt and not options.continue_final_message
    return "\n".join([*lines, "assistant:"] if opens else lines)


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    return {**call, "function": {**function, "arguments": _as_object(function.get("arguments"))}}


def _as_object(arguments: Any) -> Any:
    """What JSON text says, if it says an object; nothing said is an empty one."""
    if arguments is None or arguments == "":
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return {} if value is None else value if isinstance(value, dict) else arguments


def _with_json_arguments(message: Message) -> Message:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [_with_json(call) for call in message["tool_calls"]]}


def _with_json(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}}


def _joined(content: object) -> str:
    """The text of a message. Raises InvalidRequestError for content that is no text."""
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    if content is None or isinstance(content, str):
        return content or ""
    raise InvalidRequestError("The content of a message must be a string, a list or null.", param="messages")


def _part_text(part: object) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    text = part.get(kind) if isinstance(part, dict) and kind in _TEXT_PARTS else None
    if not isinstance(text, str):
        raise InvalidRequestError("The parts of a message's content must be text.", param="messages")
    return text
