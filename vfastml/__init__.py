"""VFastML: an OpenAI-compatible gateway, a typed wire, and model servers with continuous batching.

The public names below are loaded on first use, so that a gateway never pays for torch, nor a model server for FastAPI.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.3.0"

_HOMES = {
    "FastMLServer": "vfastml.entrypoints.api_server",
    "TextGenerationModelServerHF": "vfastml.models_servers.model_server_text_hf",
    "OneShotModelServer": "vfastml.models_servers.one_shot_server",
    "ModelServer": "vfastml.models_servers.model_server",
    "TextGenerationReq": "vfastml.engine.dispatch_requests",
    "LLM": "vfastml.llm",
    "TextGenerationForward": "vfastml.engine.dispatch_requests",
    "TextGenerationMessage": "vfastml.engine.dispatch_requests",
    "OneShotReq": "vfastml.engine.dispatch_requests",
    "ImageToImageReq": "vfastml.engine.dispatch_requests",
    "SamplingParams": "vfastml.engine.dispatch_requests",
    "BeamSearch": "vfastml.engine.dispatch_requests",
    "Constraint": "vfastml.engine.dispatch_requests",
    "ToolUse": "vfastml.engine.dispatch_requests",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vfastml' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
