"""Text generation with a Hugging Face model: the continuous-batching engine behind the wire."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vfastml.engine.dispatch_replies import Detokenized, Limits, Load, ServedModel
from vfastml.engine.dispatch_requests import DetokenizeReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.errors import UnsupportedError
from vfastml.model_store import DEFAULT_MODEL, ModelStoreError, profiles_folder, resolve_model
from vfastml.models_servers.inbox import Work
from vfastml.models_servers.model_server import ModelServer, StartError
from vfastml.models_servers.unsent_replies import Answer, WorkReply
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import load_engine
from vfastml.text_engine.forward_defaults import forward_defaults
from vfastml.text_engine.load_options import engine_config_for, load_options
from vfastml.text_engine.request_encoder import RequestEncoder
from vfastml.text_engine.step_trace import StepTrace, writable_folder


class TextGenerationModelServerHF(ModelServer):
    """Serves one causal language model.

    `model_load_kwargs` are the fields of LoadOptions, as transformers names them; `model_forward_kwargs`, a dict or a
    TextGenerationForward, are defaults that a request may override. An unknown one of either stops the start.
    `trace_folder` gets a trace of a few warm steps (see StepTrace).
    """

    def __init__(
        self,
        model_type: str = "text_generation",
        model_uri: str = DEFAULT_MODEL,
        *args: Any,
        engine_config: EngineConfig | None = None,
        trace_folder: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_type, model_uri, *args, **kwargs)
        self.engine_config = engine_config or EngineConfig()
        self.trace_folder = trace_folder

    def load(self) -> None:
        """See ModelServer."""
        trace_into = None if self.trace_folder is None else writable_folder(self.trace_folder)
        options = load_options(self.model_load_kwargs)
        config = engine_config_for(self.engine_config, self.model_device, options)
        defaults = forward_defaults(self.model_forward_kwargs)
        try:
            stored = resolve_model(
                self.model_uri,
                token=options.token,
                revision=options.revision,
                with_weights=config.load_format != "dummy",
                progress=self.report,
            )
        except ModelStoreError as error:
            raise StartError(str(error)) from error
        self._model_id = stored.model_id
        self._created = int(time.time())
        self._loaded = load_engine(
            stored.folder, config, self.report, options=options, name=stored.model_id, profiles=profiles_folder()
        )
        self._engine = self._loaded.engine
        self._trace = None if trace_into is None else StepTrace(self._engine, trace_into)
        self._request_encoder = RequestEncoder(
            self._loaded.encoder, self._loaded.limits, defaults, self._loaded.compiler
        )

    def prepare(self, request: WorkReq) -> Work | Answer:
        """See ModelServer."""
        if isinstance(request, TextGenerationReq):
            return self._request_encoder.encode(request)
        if isinstance(request, TokenizeReq):
            return self._request_encoder.tokenized(request)
        if isinstance(request, DetokenizeReq):
            encoder = self._loaded.encoder
            encoder.check_token_ids(request.tokens, "tokens")
            return Detokenized(request.request_id, encoder.decode_all(request.tokens))
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
        return self._engine.step() if self._trace is None else self._trace.step()

    def close(self) -> None:
        """See ModelServer."""
        if self._trace is not None:
            self._trace.close()

    def served_models(self) -> list[ServedModel]:
        """See ModelServer."""
        first, *aliases = dict.fromkeys((*self.served_model_names, self._model_id))
        return [ServedModel(first, self.model_uri, aliases, self._loaded.limits.max_model_len, self._created)]

    def limits(self) -> Limits:
        """See ModelServer."""
        return self._loaded.limits

    def current_load(self) -> Load:
        """See ModelServer."""
        return self._engine.load()

    def device_and_dtype(self) -> tuple[str, str]:
        """See ModelServer."""
        return self._loaded.device, self._loaded.dtype

    def decoder(self) -> str:
        """See ModelServer."""
        return self._loaded.decoder
