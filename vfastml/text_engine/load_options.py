"""`model_load_kwargs`: what may be said about how a model is loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.engine_config import EngineConfig

_KNOWN = (
    "dtype",
    "torch_dtype",
    "token",
    "revision",
    "device_map",
    "max_memory",
    "quantization_config",
    "load_in_8bit",
    "load_in_4bit",
)
_NEVER = {
    "trust_remote_code": "code of a model's repository is never run",
    "attn_implementation": "attention always runs over the engine's own KV cache",
}
_SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load one model. None, or the default, is what a model without options gets."""

    dtype: str | None = None
    """As in EngineConfig, which holds where this is None."""
    token: str | None = field(default=None, repr=False)
    """For the hub; a secret."""
    revision: str | None = None
    """Branch, tag or commit, on the hub."""
    device_map: str | dict[str, Any] | None = None
    """Which part of the model goes to which device, as accelerate takes it; None: all of it to one."""
    max_memory: dict[int | str, int | str] | None = None
    """Bytes (or `10GiB`) for the weights on each device, by number or `cpu`."""
    quantization: Any = None
    """A quantization config of transformers, or one as a dict; None: the weights as they are stored."""


def load_options(given: Mapping[str, Any]) -> LoadOptions:
    """Checks `model_load_kwargs`; None as a value asks for nothing.

    Raises UnsupportedError for an unknown option, and for one that needs a package which is not installed;
    InvalidRequestError for a value that cannot be used.
    """
    _refuse_unknown(given)
    asked = {name: value for name, value in given.items() if value is not None}
    return LoadOptions(
        dtype=_dtype(asked),
        token=_text("token", asked),
        revision=_text("revision", asked),
        device_map=_device_map(asked),
        max_memory=_max_memory(asked),
        quantization=_quantization(asked),
    )


def engine_config_for(config: EngineConfig, model_device: str, options: LoadOptions) -> EngineConfig:
    """The config with what a constructor's own arguments say; theirs goes first. Raises InvalidRequestError where two
    of them contradict each other."""
    device = config.device if model_device == "auto" else model_device
    if options.device_map is not None and device != "auto":
        raise InvalidRequestError("model_load_kwargs: device_map and a device of its own contradict each other.")
    return dataclasses.replace(config, device=device, dtype=options.dtype or config.dtype)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in _KNOWN:
            why = f" ({_NEVER[name]})" if name in _NEVER else ""
            raise UnsupportedError(f"model_load_kwargs does not take {name!r}{why}; known are {', '.join(_KNOWN)}.")


def _dtype(asked: Mapping[str, Any]) -> str | None:
    names = {str(asked[name]).removeprefix("torch.") for name in ("dtype", "torch_dtype") if name in asked}
    if len(names) > 1:
        raise InvalidRequestError("model_load_kwargs: dtype and torch_dtype contradict each other.")
    return next(iter(names), None)


def _text(name: str, asked: Mapping[str, Any]) -> str | None:
    value = asked.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequestError(f"model_load_kwargs: {name} must be a string.")
    return value


def _device_map(asked: Mapping[str, Any]) -> str | dict[str, Any] | None:
    value = asked.get("device_map")
    if isinstance(value, Mapping):
        return dict(value)
    if value is not None and value not in _SPREADS:
        known = ", ".join(_SPREADS)
        raise InvalidRequestError(
            f"model_load_kwargs: device_map must be {known}, or a dict of modules and devices; one device for all of "
            "the model is said with model_device."
        )
    return value


def _max_memory(asked: Mapping[str, Any]) -> dict[int | str, int | str] | None:
    value = asked.get("max_memory")
    if value is None:
        return None
    if "device_map" not in asked or not isinstance(value, Mapping):
        raise InvalidRequestError("model_load_kwargs: max_memory must be a dict, and goes with a device_map.")
    # JSON has no numbers as keys
    return {int(key) if str(key).isdecimal() else key: size for key, size in value.items()}


def _quantization(asked: Mapping[str, Any]) -> Any:
    names = [name for name in ("load_in_8bit", "load_in_4bit", "quantization_config") if asked.get(name)]
    if len(names) > 1:
        raise InvalidRequestError(f"model_load_kwargs: {names[0]} and {names[1]} contradict each other.")
    if not names or names[0] == "quantization_config":
        return asked.get("quantization_config")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UnsupportedError(f"{names[0]} needs the package bitsandbytes: run `pip install bitsandbytes`.")
    return {names[0]: True}
