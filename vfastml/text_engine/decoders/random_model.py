"""A transformers model with random weights, made on its device without reading any."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

_SEED = 7


def random_hf_model(folder: Path, *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model of the folder's config, with the weights that training would begin with, the same each
    time on the same kind of device. No code of the folder is run."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(_SEED)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
