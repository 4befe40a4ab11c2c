"""Models of which only the shape counts: a folder with a config and a tokenizer, and no weights.

The tokenizer is made up, too: every token that random weights can come to has some text, so that each is streamed, and
no package has to be at hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

_MODEL_LEN = 8192
_END = "</s>"
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class ModelShape:
    """A Llama-like model's numbers, as config.json has them."""

    name: str
    numbers: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """All of config.json. There is one end token, the last of the vocabulary."""
        vocabulary = self.numbers["vocab_size"]
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rms_norm_eps": 1e-5,
            "initializer_range": 0.02,
            "max_position_embeddings": _MODEL_LEN,
            "bos_token_id": vocabulary - 1,
            "eos_token_id": vocabulary - 1,
            "dtype": "bfloat16",
            **self.numbers,
        }


def _shape(
    name: str, hidden: int, inner: int, layers: int, heads: tuple[int, int, int], vocab: int, **more: Any
) -> ModelShape:
    num_heads, num_kv_heads, head_dim = heads
    numbers = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    }
    return ModelShape(name, numbers | more)


LLAMA_8B = _shape(
    "llama-3.1-8b", 4096, 14336, 32, (32, 8, 128), 128256,
    tie_word_embeddings=False, rope_parameters=_LLAMA3_ROPE | {"factor": 8.0},
)  # fmt: skip
LLAMA_1B = _shape("llama-3.2-1b", 2048, 8192, 16, (32, 8, 64), 128256, rope_parameters=_LLAMA3_ROPE | {"factor": 32.0})
SMOLLM2 = _shape("smollm2-135m", 576, 1536, 30, (9, 3, 64), 49152)
TINY = _shape("tiny", 32, 64, 2, (2, 1, 16), 320)
"""For dry runs."""
SHAPES = {shape.name: shape for shape in (LLAMA_8B, LLAMA_1B, SMOLLM2, TINY)}


def write_shape(shape: ModelShape, folder: Path) -> Path:
    """The folder again; it is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config, indent=1))
    vocabulary = shape.numbers["vocab_size"]
    made_up_tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END, "model_max_length": _MODEL_LEN}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def made_up_tokenizer(vocab_size: int) -> Tokenizer:
    """The 256 bytes, by which texts are encoded, then words of five letters that nothing is encoded by, then one end
    token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("Ġ" + "".join(letters) for letters in product(ascii_lowercase, repeat=5))
    texts = [*alphabet, *(word for word, _ in zip(words, range(vocab_size - len(alphabet) - 1), strict=False)), _END]
    tokenizer = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(texts)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END])
    return tokenizer
