"""A text model in your own process: the model server's engine, without processes and sockets."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from vfastml.engine.dispatch_replies import Finished
from vfastml.engine.dispatch_requests import (
    BeamSearch,
    Constraint,
    SamplingParams,
    TextGenerationForward,
    TextGenerationReq,
    ToolUse,
)
from vfastml.engine.dispatch_result import GatheredReplies, TextGenerationResult
from vfastml.errors import InvalidRequestError, UserError
from vfastml.model_store import DEFAULT_MODEL, profiles_folder, resolve_model
from vfastml.model_store.progress import PhaseLines
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.forward_defaults import forward_defaults
from vfastml.text_engine.load_options import engine_config_for, load_options
from vfastml.text_engine.local_engine import LocalEngine
from vfastml.text_engine.request_encoder import RequestEncoder

Message = dict[str, Any]
Conversation = str | Sequence[Message]
"""One user message, or all messages as dicts (TextGenerationMessage is one)."""
Params = SamplingParams | TextGenerationForward

_OF_ONE_PROMPT = ("prompt", "messages", None)
"""The `param` of errors for which a prompt is to blame; others are about what holds for all of them."""


class LLM:
    """Generates text with one model, for many prompts at a time; what does not fit at once waits for its turn.

    Loading happens here, and says on stderr how far it is. The arguments are those of TextGenerationModelServerHF.
    Raises ModelStoreError for a model that cannot be had, UnsupportedError for one that cannot be served, and
    InvalidRequestError for settings that cannot work. One thread at a time may use it.
    """

    def __init__(
        self,
        model_uri: str = DEFAULT_MODEL,
        *,
        model_device: str = "auto",
        model_load_kwargs: Mapping[str, Any] | None = None,
        model_forward_kwargs: Mapping[str, Any] | TextGenerationForward | None = None,
        engine_config: EngineConfig | None = None,
    ) -> None:
        options = load_options(model_load_kwargs or {})
        config = engine_config_for(engine_config or EngineConfig(), model_device, options)
        defaults = forward_defaults(model_forward_kwargs)
        phases = PhaseLines(_say)
        stored = resolve_model(
            model_uri,
            token=options.token,
            revision=options.revision,
            with_weights=config.load_format != "dummy",
            progress=phases,
        )
        loaded = load_engine(
            stored.folder, config, phases, options=options, name=stored.model_id, profiles=profiles_folder()
        )
        self.model = stored.model_id
        self.limits = loaded.limits
        self.device, self.dtype = loaded.device, loaded.dtype
        self._encoder = RequestEncoder(loaded.encoder, loaded.limits, defaults, loaded.compiler)
        self._engine = LocalEngine(loaded.engine, self.model)
        self._numbers = itertools.count()
        phases(f"{self.model} is ready on {self.device} in {self.dtype}")

    def __repr__(self) -> str:
        return f"LLM({self.model!r}, device={self.device!r}, dtype={self.dtype!r})"

    def generate(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        params: Params | None = None,
        *,
        n: int | None = None,
        beams: BeamSearch | None = None,
        constraint: Constraint | None = None,
        progress: bool = True,
    ) -> list[TextGenerationResult]:
        """Goes on with each prompt, a text or token ids; one result for each, in their order. `n` choices of each.

        Shows a progress bar on a terminal. Raises InvalidRequestError, with the prompt's index, before anything is
        generated. Ctrl-C cancels all of it, after at most one step.
        """
        given = [prompts] if isinstance(prompts, str) else prompts
        asked = {"beams": beams, "constraint": constraint}
        encoded = self._encode_all("prompts", map(_prompt, given), params, n, stream=False, **asked)
        return self._answer(encoded, progress)

    def chat(
        self,
        conversations: Conversation | Sequence[Conversation],
        params: Params | None = None,
        *,
        n: int | None = None,
        beams: BeamSearch | None = None,
        constraint: Constraint | None = None,
        tool_use: ToolUse | None = None,
        progress: bool = True,
    ) -> list[TextGenerationResult]:
        """Answers conversations, rendered with the model's chat template: one (a string, a list of messages) or a list
        of them, which a list of strings is too. `tool_use`: functions that may be called; a choice's calls are in its
        `tool_calls`, and what it thinks before in its `reasoning`. Otherwise as `generate`."""
        given = _conversations(conversations)
        asked = {"beams": beams, "constraint": constraint, "tool_use": tool_use, "splits_reasoning": True}
        encoded = self._encode_all("conversations", map(_messages, given), params, n, stream=False, **asked)
        return self._answer(encoded, progress)

    def stream(self, conversation: Conversation, params: Params | None = None) -> Generator[str, None, None]:
        """The answer to one conversation, piece by piece as it is generated. Closing the iterator, or dropping it,
        cancels the request. Raises InvalidRequestError at once."""
        given = _conversations(conversation)
        if len(given) != 1:
            raise InvalidRequestError("stream takes one conversation.")
        [encoded] = self._encode_all("conversations", map(_messages, given), params, None, stream=True)
        if encoded.num_choices != 1:
            raise InvalidRequestError("stream gives one text: 'n' must be 1.", param="n")
        return self._pieces(encoded)

    # -- what was asked for

    def _encode_all(
        self, what: str, prompts: Iterable[dict[str, Any]], params: Params | None, n: int | None, **fields: Any
    ) -> list[EncodedRequest]:
        """`what` names the argument that the prompts came in."""
        sampling, n = _asked(params, n)
        common: dict[str, Any] = {"sampling": sampling, "n": n, "return_token_ids": True, **fields}
        encoded: list[EncodedRequest] = []
        try:
            for prompt in prompts:
                request_id = f"llm-{next(self._numbers)}"
                encoded.append(self._encoder.encode(TextGenerationReq(request_id=request_id, **common, **prompt)))
        except UserError as error:
            if error.param not in _OF_ONE_PROMPT:
                raise
            message = f"{what}[{len(encoded)}]: {error.message}"
            raise InvalidRequestError(message, param=error.param, code=error.code) from error
        return encoded

    # -- the engine

    def _answer(self, encoded: list[EncodedRequest], progress: bool) -> list[TextGenerationResult]:
        waiting = {one.request_id for one in encoded}
        try:
            gathered = self._engine.begin(encoded)
            with _Bar(len(encoded), progress) as bar:
                while waiting:
                    for ended in self._engine.step():
                        if ended.request.request_id in waiting:
                            waiting.remove(ended.request.request_id)
                            bar.finished(_finished(ended).usage.completion_tokens)
        finally:
            self._engine.cancel(waiting)
        return [one.result().result for one in gathered]

    def _pieces(self, encoded: EncodedRequest) -> Generator[str, None, None]:
        try:
            [one] = self._engine.begin([encoded])
            while one.deltas or not one.ended:
                if not one.deltas:  # else they came while another call moved all requests on
                    self._engine.step()
                deltas, one.deltas = one.deltas, []
                yield from (delta.text for delta in deltas if delta.text)
            _finished(one)
        finally:
            self._engine.cancel([encoded.request_id])


class _Bar:
    """How many requests have finished, and how many tokens they got a second."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar = tqdm(total=total, desc="Generating", unit=" requests", disable=None if shown else True)
        self._began_s = time.monotonic()
        self._tokens = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def finished(self, tokens: int) -> None:
        """One more, with that many tokens."""
        self._tokens += tokens
        rate = self._tokens / (time.monotonic() - self._began_s)
        self._bar.set_postfix_str(f"{rate:.1f} tokens/s", refresh=False)
        self._bar.update()


def _say(phase: str) -> None:
    tqdm.write(f"vfastml: {phase}", file=sys.stderr)


def _asked(params: Params | None, n: int | None) -> tuple[SamplingParams, int | None]:
    if params is None or isinstance(params, SamplingParams):
        return params or SamplingParams(), n
    if not isinstance(params, TextGenerationForward):
        raise InvalidRequestError("'params' must be SamplingParams or TextGenerationForward.", param="params")
    if None not in (n, params.num_generations) and n != params.num_generations:
        raise InvalidRequestError("'n' and the 'num_generations' of params contradict each other.", param="n")
    return forward_defaults(params).sampling, params.num_generations if n is None else n


def _prompt(prompt: object) -> dict[str, Any]:
    """The field of TextGenerationReq that it goes into."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes) and all(type(token) is int for token in prompt):
        return {"prompt_token_ids": list(prompt)}
    raise InvalidRequestError("A prompt must be a string or a list of token ids.", param="prompt")


def _messages(conversation: object) -> dict[str, Any]:
    if isinstance(conversation, str):
        return {"messages": conversation}
    if isinstance(conversation, Sequence) and all(isinstance(message, dict) for message in conversation):
        return {"messages": list(conversation)}
    raise InvalidRequestError("A conversation must be a string or a list of messages.", param="messages")


def _conversations(given: Conversation | Sequence[Conversation]) -> list[object]:
    if isinstance(given, str):
        return [given]
    items: list[Any] = [given] if isinstance(given, dict) else list(given)  # a message alone is forgiven
    return [items] if items and all(isinstance(message, dict) for message in items) else items


def _finished(ended: GatheredReplies) -> Finished:
    """The terminal. Raises the error of a request that failed."""
    if isinstance(ended.answer, Finished):
        return ended.answer
    error = ended.result().error
    assert error is not None  # what is no Finished is a failure
    raise error
