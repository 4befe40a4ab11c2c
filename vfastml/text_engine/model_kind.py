"""Can a folder's model be served at all? Read from its config alone, before any weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from vfastml.errors import UnsupportedError

_GENERATORS = ("CausalLM", "LMHeadModel", "ModelWithLMHead", "ConditionalGeneration")
"""How the names of architectures end whose weights can generate text; to others transformers adds random ones."""


def check_kind(folder: Path, name: str) -> None:
    """Raises UnsupportedError for what transformers would load as something else, or advise to run code for."""
    config = _config(folder)
    if config.get("model_type") not in CONFIG_MAPPING_NAMES:
        why = "needs code of its own, which is never run" if "auto_map" in config else "is of an unknown model type"
        raise UnsupportedError(f"{name} {why}: choose a model that transformers knows by itself")
    architectures = config.get("architectures")
    if architectures and not architectures[0].endswith(_GENERATORS):
        raise UnsupportedError(
            f"{name} is a {architectures[0]}, which does not generate text: choose a causal language model"
        )
    quantization = stored_quantization(folder)
    if quantization is not None and not _is_known(quantization):
        raise UnsupportedError(
            f"The weights of {name} are quantized in a way that transformers does not know "
            f"({quantization.get('quant_method')}): choose a model that is quantized otherwise, or not at all"
        )


def stored_quantization(folder: Path) -> dict[str, Any] | None:
    """How the weights are quantized as they lie in the folder; None if they are not."""
    config = _config(folder)
    found: dict[str, Any] | None = config.get("quantization_config")
    return found or (config.get("text_config") or {}).get("quantization_config")


def _config(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_bytes())


def _is_known(quantization: dict[str, Any]) -> bool:
    of_bitsandbytes = quantization.get("load_in_4bit") or quantization.get("load_in_8bit")
    return bool(of_bitsandbytes) or quantization.get("quant_method") in AUTO_QUANTIZATION_CONFIG_MAPPING
