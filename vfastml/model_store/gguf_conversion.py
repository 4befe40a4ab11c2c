"""GGUF file to Hugging Face folder. Imports torch and transformers, so gguf_file.py imports it only to convert."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, PreTrainedTokenizerFast

from vfastml.model_store.errors import ModelStoreError

_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes config, bfloat16 safetensors and tokenizer of a GGUF language model into the existing `folder`.

    Takes about 20 s for 135 million weights, and memory for all of them. Raises ModelStoreError for a file that is no
    GGUF, or of an architecture that transformers cannot read.
    """
    try:
        said = _tokenizer_metadata(gguf)
        tokenizer = _tokenizer(gguf, said)
        model = _model(gguf)
        model.generation_config = _generation_config(said)
        tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    except Exception as error:  # a foreign file can break its readers in any way
        raise ModelStoreError(
            f"{gguf.name} cannot be converted ({error}): choose a GGUF language model that transformers can read, "
            "or a Hugging Face folder."
        ) from error
    _save(model, tokenizer, folder)


def _tokenizer_metadata(gguf: Path) -> dict[str, Any]:
    fields = GGUFReader(gguf).fields
    names = ["pre", *(f"{role}_token_id" for role in (*_SPECIAL_TOKENS.values(), "eot"))]
    return {name: field.contents() for name in names if (field := fields.get(f"tokenizer.ggml.{name}"))}


def _tokenizer(gguf: Path, said: dict[str, Any]) -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    backend = loaded.backend_tokenizer
    if said.get("pre") == "smollm":
        # transformers overlooks this name, and with it the step that parts all digits, as in 2² or ٣٤.
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    ids = {token: said.get(f"{role}_token_id") for token, role in _SPECIAL_TOKENS.items()}
    # A new object: the loaded one would save how it was loaded, and transformers 5.17 takes bos for eos.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=loaded.chat_template,
        clean_up_tokenization_spaces=False,
        **{token: backend.id_to_token(id_) for token, id_ in ids.items() if id_ is not None},
    )


def _model(gguf: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        local_files_only=True,
        trust_remote_code=False,
        dtype=torch.bfloat16,
        # Without it the model is dense all the same but stays tagged as quantized, and so cannot be saved.
        quantization_config=GgufConfig(dequantize=True),
    )
    vars(model.config).pop("_model_name_or_path", None)  # the name of some training run
    for name in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        if isinstance(value := getattr(model.config, name, None), float):
            # GGUF holds float32: 1e-5 reads 9.9999997e-06.
            setattr(model.config, name, float(f"{value:.7g}"))
    return model


def _generation_config(said: dict[str, Any]) -> GenerationConfig:
    # Some chat models end their turn with a token that is not the end of the text; either ends the answer.
    ends = [said[name] for name in ("eos_token_id", "eot_token_id") if name in said]
    eos = sorted(set(ends)) if len(set(ends)) > 1 else next(iter(ends), None)
    pad = said.get("padding_token_id", said.get("eos_token_id"))
    return GenerationConfig(bos_token_id=said.get("bos_token_id"), eos_token_id=eos, pad_token_id=pad)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # it hides the OSError that would tell a full disk
        raise ModelStoreError(
            f"The converted model could not be written ({error}): free some space, "
            "or set VFASTML_CACHE to a folder that has it."
        ) from error
    tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        # They come out readable by their owner alone, which a cache filled by another user would not survive.
        shutil.copymode(folder / "config.json", weights)
