"""Text generation with a Hugging Face model: the continuous-batching engine behind the wire."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from vfastml.engine.dispatch_replies import Detokenized, Limits, Load, ServedModel, Tokenized
from vfastml.engine.dispatch_requests import DetokenizeReq, SamplingParams, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, resolve_model
from vfastml.models_servers.model_server import ModelServer, StartError
from vfastml.models_servers.server_link import Work
from vfastml.models_servers.unsent_replies import Answer, WorkReply
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.prompt_encoder import context_length_exceeded
from vfastml.text_engine.sampling import settle_sampling
from vfastml.text_engine.text_request import EncodedRequest

_LOAD_KWARGS = ("dtype", "token")
_GENERATORS = ("CausalLM", "LMHeadModel", "ModelWithLMHead", "ConditionalGeneration")
"""How the names of architectures end whose weights can generate text; to others transformers adds random ones."""


class TextGenerationModelServerHF(ModelServer):
    """Serves one causal language model.

    `model_load_kwargs` takes `dtype` and `token` (for a hub); `model_forward_kwargs` are defaults that a request may
    override, named as in SamplingParams. An unknown one of either stops the start.
    """

    def __init__(
        self,
        model_type: str = "text_generation",
        model_uri: str = DEFAULT_MODEL,
        *args: Any,
        engine_config: EngineConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_type, model_uri, *args, **kwargs)
        self.engine_config = engine_config or EngineConfig()

    def load(self) -> None:
        """See ModelServer."""
        _refuse_unknown("model_load_kwargs", self.model_load_kwargs, _LOAD_KWARGS)
        self._defaults = _sampling_defaults(self.model_forward_kwargs)
        config = dataclasses.replace(
            self.engine_config,
            device=self.model_device if self.model_device != "auto" else self.engine_config.device,
            dtype=self.model_load_kwargs.get("dtype", self.engine_config.dtype),
        )
        try:
            stored = resolve_model(self.model_uri, token=self.model_load_kwargs.get("token"), progress=self.report)
        except ModelStoreError as error:
            raise StartError(str(error)) from error
        _check_kind(stored.folder, stored.model_id)
        disable_progress_bar()  # reported phases say the same, and a log file takes no bars
        self._model_id = stored.model_id
        self._created = int(time.time())
        self._loaded = load_engine(stored.folder, config, self.report)
        self._engine = self._loaded.engine
        self._encoder = self._loaded.encoder
        self._limits = self._loaded.limits

    def prepare(self, request: WorkReq) -> Work | Answer:
        """See ModelServer."""
        if isinstance(request, TextGenerationReq):
            return self._prepare_generation(request)
        if isinstance(request, TokenizeReq):
            return self._tokenize(request)
        if isinstance(request, DetokenizeReq):
            self._encoder.check_token_ids(request.tokens, "tokens")
            return Detokenized(request.request_id, self._encoder.decode_all(request.tokens))
        raise UnsupportedError(f"This model does not answer a {type(request).__name__}.", param="model")

    def accept(self, work: Work) -> None:
        """See ModelServer."""
        assert isinstance(work, EncodedRequest)
        self._engine.add(work)

    def cancel(self, request_id: str) -> None:
        """See ModelServer."""
        self._engine.cancel(request_id)

    def due_in_s(self) -> float | None:
        """See ModelServer."""
        return 0 if self._engine.has_work else None

    def step(self) -> Iterable[WorkReply]:
        """See ModelServer."""
        return self._engine.step()

    def served_models(self) -> list[ServedModel]:
        """See ModelServer."""
        first, *aliases = dict.fromkeys((*self.served_model_names, self._model_id))
        return [ServedModel(first, self.model_uri, aliases, self._limits.max_model_len, self._created)]

    def limits(self) -> Limits:
        """See ModelServer."""
        return self._limits

    def current_load(self) -> Load:
        """See ModelServer."""
        return self._engine.load()

    def device_and_dtype(self) -> tuple[str, str]:
        """See ModelServer."""
        return self._loaded.device, self._loaded.dtype

    def _prepare_generation(self, request: TextGenerationReq) -> EncodedRequest:
        if request.model_adapter_uri is not None:
            raise UnsupportedError("Adapters are not supported yet.", param="model_adapter_uri")
        if not 1 <= request.n <= self._limits.max_num_seqs:
            raise InvalidRequestError(f"'n' must be between 1 and {self._limits.max_num_seqs}.", param="n")
        param = "prompt" if request.messages is None else "messages"
        tokens = self._prompt_tokens(request)
        if not tokens:
            raise InvalidRequestError("The prompt must have at least one token.", param=param)
        room = self._limits.max_model_len - len(tokens)
        if room < 1:
            raise context_length_exceeded(self._limits.max_model_len, len(tokens), param)
        sampling = settle_sampling(request.sampling, self._defaults, room=room)
        return EncodedRequest(request, tokens, sampling, self._echo_text(request, tokens))

    def _prompt_tokens(self, request: TextGenerationReq) -> list[int]:
        given = [part for part in (request.messages, request.prompt, request.prompt_token_ids) if part is not None]
        if len(given) != 1:
            raise InvalidRequestError("Give exactly one of messages, prompt and prompt token ids.")
        if request.prompt_token_ids is not None:
            self._encoder.check_token_ids(request.prompt_token_ids, "prompt")
            return request.prompt_token_ids
        return self._encode(request.messages, request.prompt, add_special_tokens=True)

    def _encode(
        self, messages: list[dict[str, Any]] | str | None, prompt: str | None, *, add_special_tokens: bool
    ) -> list[int]:
        max_tokens = self._limits.max_model_len
        if messages is not None:
            return self._encoder.encode_messages(messages, max_tokens=max_tokens)
        return self._encoder.encode_text(prompt or "", max_tokens=max_tokens, add_special_tokens=add_special_tokens)

    def _echo_text(self, request: TextGenerationReq, tokens: list[int]) -> str:
        if not request.echo:
            return ""
        return self._encoder.decode_all(tokens) if request.prompt is None else request.prompt

    def _tokenize(self, request: TokenizeReq) -> Tokenized:
        if (request.messages is None) == (request.prompt is None):
            raise InvalidRequestError("Give exactly one of messages and prompt.")
        tokens = self._encode(request.messages, request.prompt, add_special_tokens=request.add_special_tokens)
        return Tokenized(request.request_id, tokens, self._limits.max_model_len)


def _sampling_defaults(given: dict[str, Any]) -> SamplingParams:
    """Raises StartError for what no request could ask for either."""
    _refuse_unknown("model_forward_kwargs", given, SamplingParams.__struct_fields__)
    types = {field.name: field.type for field in msgspec.structs.fields(SamplingParams)}
    try:
        defaults = SamplingParams(**{name: msgspec.convert(value, types[name]) for name, value in given.items()})
        settle_sampling(defaults, defaults, room=1 << 30)
    except (msgspec.ValidationError, InvalidRequestError) as error:
        raise StartError(f"model_forward_kwargs has a value that cannot be used: {error}") from error
    return defaults


def _check_kind(folder: Path, name: str) -> None:
    """Raises StartError for what transformers would load as something else, or advise to run code for."""
    config = json.loads((folder / "config.json").read_bytes())
    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        why = "needs code of its own, which is never run" if "auto_map" in config else "is of an unknown model type"
        raise StartError(f"{name} {why}: choose a model that transformers knows by itself")
    architectures = config.get("architectures")
    if architectures and not architectures[0].endswith(_GENERATORS):
        raise StartError(
            f"{name} is a {architectures[0]}, which does not generate text: choose a causal language model"
        )


def _refuse_unknown(what: str, given: dict[str, Any], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise StartError(f"{what} has an unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
