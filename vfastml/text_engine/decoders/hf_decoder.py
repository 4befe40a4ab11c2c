"""Any Hugging Face model, unmodified: its attention layers are led to our paged cache through transformers' own hook.

transformers looks an attention function up by the name in `config._attn_implementation` and passes it every keyword
that the model was called with; a name without a mask function makes it build no mask. So a packed batch goes in as one
row of T tokens with explicit positions, and the AttentionStep rides along as a keyword.
"""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.attention.interface import AttentionOptions, AttentionStep
from vfastml.text_engine.attention.kind import SDPA, AttentionChoice, AttentionNeeds
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.decoders.decoder import ForwardPass
from vfastml.text_engine.decoders.end_tokens import end_token_list
from vfastml.text_engine.kv_cache import KVCache, KVShape
from vfastml.text_engine.load_options import LoadOptions
from vfastml.text_engine.model_kind import stored_quantization

_HOOK = "vfastml"


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    attention_step: AttentionStep | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: query [1, H, T, D], key and value [1, KV heads, T, D], after RoPE. Further
    keywords do not change causal attention; a model for which they do fails `check_decoder`."""
    if attention_step is None:
        raise UnsupportedError("The model does not hand keywords on to its attention layers.")
    if s_aux is not None:
        raise UnsupportedError("The model has attention sinks, which are not supported yet.")
    options = AttentionOptions(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    # contiguous: RoPE leaves [1, H, T, D] with T and H swapped in memory, and a view would be strided
    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    real = attention_step.num_tokens
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = attention_step(layer, query[:real], key[:real], value[:real], options)
    return pad(output, (0, 0, 0, 0, 0, len(query) - real))[None], None


AttentionInterface.register(_HOOK, _attend)


@dataclass(slots=True)
class _LayerProbe:
    """Stands in for an AttentionStep to learn what each layer stores, where, how far back it looks, and what else it
    asks for; computes nothing."""

    shapes: dict[int, KVShape]
    windows: dict[int, int | None]
    num_tokens: int = 1
    num_heads: int = 0
    softcaps: bool = False

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        self.shapes[layer] = KVShape(key.shape[1], key.shape[2], value.shape[2], key.device)
        self.windows[layer] = options.sliding_window
        self.num_heads = max(self.num_heads, query.shape[1])
        self.softcaps |= options.softcap is not None
        return query.new_zeros(*query.shape[:2], value.shape[-1])


class HFDecoder:
    """Runs a transformers causal language model over packed batches: a Decoder of any family."""

    def __init__(self, model: PreTrainedModel, choose_attention: AttentionChoice = lambda needs: SDPA) -> None:
        """What the attention has to do shows only in a call of the model, so it is chosen here. Raises UnsupportedError
        for a model that cannot be served, and as `choose_attention` does."""
        self.name = type(model).__name__
        self.kind = "hf"
        if not model._supports_attention_backend:
            raise UnsupportedError(f"{self.name} does not let its attention be replaced.")
        self.model = model.eval()
        self.config = model.config.get_text_config()
        self.dtype = model.dtype
        self.is_quantized = getattr(model, "hf_quantizer", None) is not None
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        self.model.set_attn_implementation(_HOOK)
        probe = self._probe_layers()
        self._check_windows(probe.windows)
        self.kv_shapes = [probe.shapes[layer] for layer in sorted(probe.shapes)]
        self.device = self.kv_shapes[0].device or model.device
        """Where inputs go and logits come from; a model that is spread over several devices moves them itself."""
        self._attention = choose_attention(
            AttentionNeeds(
                self.device,
                self.dtype,
                probe.num_heads,
                tuple(self.kv_shapes),
                has_windows=any(window is not None for window in probe.windows.values()),
                softcaps=probe.softcaps,
            )
        )
        self.attention, self.block_size = self._attention.name, self._attention.block_size
        self.end_token_ids = end_token_list(model.generation_config)
        self._is_spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1

    def on(self, cache: KVCache) -> ForwardPass:
        """See Decoder. The forward pass raises UnsupportedError if a layer's attention did not come to it."""
        backend = self._attention.on(cache)

        def forward(inputs: BatchInputs) -> torch.Tensor:
            step = AttentionStep(backend, backend.prepare(inputs), len(inputs.input_ids))
            logits = self._logits(inputs, step)
            if step.num_calls != len(self.kv_shapes):
                raise UnsupportedError(f"{self.name} does not call each attention layer once.")
            return logits

        return forward

    def _logits(self, inputs: BatchInputs, attention_step: AttentionStep) -> torch.Tensor:
        """On a CPU, oneDNN rounds one row of half precision otherwise than two or more: a token that is alone in its
        step gets a second one beside it, so that a text does not depend on whether others run."""
        input_ids, position_ids, logits_index = inputs.input_ids, inputs.position_ids, inputs.logits_index
        if self.device.type == "cpu" and self.dtype != torch.float32:
            input_ids, position_ids, logits_index = map(_at_least_two, (input_ids, position_ids, logits_index))
        output = self.model(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            # An index tensor would be on another device than what it picks from; a list has none.
            logits_to_keep=logits_index.tolist() if self._is_spread else logits_index,
            attention_step=attention_step,
        )
        return output.logits[0, : len(inputs.logits_index)].float()  # type: ignore[no-any-return]

    def eager_logits(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits [T, vocab_size] in float32 of one sequence [T] by the model's own eager attention."""
        self.model.set_attn_implementation("eager")
        try:
            return self.model(input_ids=token_ids[None], use_cache=False).logits[0].float()  # type: ignore[no-any-return]
        finally:
            self.model.set_attn_implementation(_HOOK)

    def _probe_layers(self) -> _LayerProbe:
        probe = _LayerProbe({}, {})
        offloaded = self.model.device.type == "meta"  # then its weights come to wherever they are needed
        one = torch.ones(1, 1, dtype=torch.int64, device="cpu" if offloaded else self.model.device)
        try:
            with torch.inference_mode():
                self.model(input_ids=one, position_ids=one - 1, use_cache=False, attention_step=probe)
        except Exception as error:
            raise UnsupportedError(f"{self.name} cannot run on a paged cache: {error}") from error
        if sorted(probe.shapes) != list(range(self.config.num_hidden_layers)):
            raise UnsupportedError(f"{self.name} has layers without ordinary attention, which are not supported yet.")
        return probe

    def _check_windows(self, windows: dict[int, int | None]) -> None:
        """A window that a model has only in the mask that it makes itself would be missed, and `check_decoder` is too
        short to notice: each layer must ask the hook for what its configuration says."""
        window = getattr(self.config, "sliding_window", None)
        kinds = {"full_attention": None, "sliding_attention": window}
        layer_types = getattr(self.config, "layer_types", None) or ["sliding_attention"] * len(windows)
        for layer, seen in windows.items():
            if layer_types[layer] not in kinds or kinds[layer_types[layer]] != seen:
                what = layer_types[layer].replace("_", " ")
                raise UnsupportedError(f"{self.name} has {what} in a form that is not supported yet (layer {layer}).")


def _at_least_two(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat(2) if len(tensor) == 1 else tensor


def load_hf_model(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype, options: LoadOptions
) -> PreTrainedModel:
    """The causal language model in `folder`, ready for inference: on the device, or as `options` spread and quantize
    it. Only safetensors are read, and no code of the folder is run.

    Raises UnsupportedError if weights are missing, or quantized in a way that cannot be computed with here;
    InvalidRequestError for a device map that does not fit.
    """
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)  # it warns at every product of matrices
    model: PreTrainedModel
    try:
        with _bars_on_terminals_only():
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                device_map=options.device_map or {"": str(device)},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **_further(options, dtype),
            )
    except Exception as error:
        why = textwrap.shorten(str(error), 300, placeholder=" ...")
        if options.quantization is not None or stored_quantization(folder) is not None:
            raise UnsupportedError(f"{name} cannot be loaded with quantized weights: {why}") from error
        if options.device_map is not None:
            raise InvalidRequestError(f"device_map does not fit {name}: {why}") from error
        raise
    if loading["missing_keys"]:  # transformers would leave them random, with no more than a printed report
        first = min(loading["missing_keys"])
        raise UnsupportedError(f"The weights lack {len(loading['missing_keys'])} tensors, {first} among them.")
    return model


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """transformers draws its bars into log files too."""
    if sys.stderr.isatty() or not is_progress_bar_enabled():
        yield
        return
    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()


def _further(options: LoadOptions, dtype: torch.dtype) -> dict[str, Any]:
    """Only what is asked for: a quantization_config of None would hide how the weights are stored."""
    quantization = options.quantization
    if isinstance(quantization, dict) and quantization.get("load_in_4bit"):
        # 4 bits are computed with in the model's dtype, where nothing else is asked for; else it would be float32
        quantization = {"bnb_4bit_compute_dtype": dtype, **quantization}
    asked = {"max_memory": options.max_memory, "quantization_config": quantization}
    return {name: value for name, value in asked.items() if value is not None}
