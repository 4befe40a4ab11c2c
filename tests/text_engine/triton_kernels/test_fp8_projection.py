"""Products in 8-bit floats, and a decoder of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.oracle import forced_logits as true_logits
from tests.text_engine.forced_run import forced_logits
from tests.text_engine.llama_family import llama
from tests.text_engine.triton_kernels.layer_shapes import normal
from tests.tiny_models import save_model
from vfastml.errors import UnsupportedError
from vfastml.text_engine.attention.kind import SDPA
from vfastml.text_engine.decoders import fp8_projection
from vfastml.text_engine.decoders.decoder_check import check_decoder
from vfastml.text_engine.decoders.fp8_projection import Fp8Projection, check_fp8
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.triton_kernels.quantize import quantize_rows_reference

pytestmark = [
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="this GPU has no 8-bit floats"
    ),
    pytest.mark.skipif(
        not torch.cuda.is_available() and torch.__version__ < (2, 12), reason="torch 2.11 scales rows on GPUs alone"
    ),
]
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def dequantized(x: torch.Tensor) -> torch.Tensor:
    rows, scales = quantize_rows_reference(x)
    return rows.float() * scales


@pytest.mark.parametrize("num_rows", [1, 2, 17])
@pytest.mark.parametrize("shape", [(48, 64), (144, 576), (32, 4096)])
def test_product_is_that_of_the_quantized_numbers(shape: tuple[int, int], num_rows: int, device: torch.device) -> None:
    weight = normal(*shape, seed=1, dtype=torch.bfloat16, device=device)
    x = normal(num_rows, shape[1], seed=2, dtype=torch.bfloat16, device=device)
    expected = dequantized(x) @ dequantized(weight).t()
    found = Fp8Projection(weight)(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 1e-2
    exact = x.float() @ weight.float().t()
    assert (found.float() - exact).norm() / exact.norm() < 0.06


def test_product_and_bias_are_added_to_the_residual(device: torch.device) -> None:
    weight, bias = (normal(*size, seed=1, dtype=torch.bfloat16, device=device) for size in ((32, 64), (32,)))
    x, residual = (normal(3, size, seed=2, dtype=torch.bfloat16, device=device) for size in (64, 32))
    expected = residual.float() + Fp8Projection(weight)(x).float() + bias.float()
    place = residual.data_ptr()
    Fp8Projection(weight, bias).add_to(residual, x)
    assert residual.data_ptr() == place
    torch.testing.assert_close(residual.float(), expected, rtol=2e-2, atol=2e-2)


class DequantizedProjection(Fp8Projection):
    """The same numbers, multiplied in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__(weight, bias)
        self._dequantized = dequantized(weight).t()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (dequantized(x) @ self._dequantized).to(torch.bfloat16)


def test_decoder_computes_with_the_quantized_numbers_and_is_near_the_exact_one(
    tmp_path: Path, device: torch.device
) -> None:
    model = llama(**SIZES, initializer_range=0.1)
    weights = LlamaWeights.open(save_model(model, tmp_path), torch.bfloat16)
    decoder = TritonDecoder(weights, device, SDPA, Fp8Projection)
    assert decoder.is_quantized
    texts = [([17, 4, 250, 3, 91, 8], [1, 2]), ([5], [88])]
    found, in_float32 = (
        torch.cat(forced_logits(each, texts, budget=5)).cpu()
        for each in (decoder, TritonDecoder(weights, device, SDPA, DequantizedProjection))
    )
    expected = torch.cat([true_logits(model, prompt, output) for prompt, output in texts])
    assert (found - in_float32).norm() / expected.norm() < 0.03
    assert 0.02 < (found - expected).norm() / expected.norm() < 0.15
    check_decoder(decoder)


def test_models_whose_matrices_do_not_fit_are_refused(tmp_path: Path, device: torch.device) -> None:
    shape = LlamaWeights.open(save_model(llama(intermediate_size=100), tmp_path), torch.bfloat16).shape
    with pytest.raises(UnsupportedError, match="multiples of 16: 100 is not"):
        check_fp8(shape, device)


def test_a_torch_without_such_products_is_found_out(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = LlamaWeights.open(save_model(llama(**SIZES), tmp_path), torch.bfloat16).shape
    check_fp8(shape, device)

    def fail(*arguments: object, **options: object) -> None:
        raise NotImplementedError("only for compute capability >= 8.9\nand a trace")

    monkeypatch.setattr(torch, "_scaled_mm", fail)
    with pytest.raises(UnsupportedError, match=r"cannot be had here: only for compute capability >= 8\.9$"):
        check_fp8(shape, device)


def test_a_torch_with_wrong_products_is_found_out(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = LlamaWeights.open(save_model(llama(**SIZES), tmp_path), torch.bfloat16).shape
    monkeypatch.setattr(fp8_projection, "quantize_rows", lambda x: quantize_rows_reference(x * 1.1))
    with pytest.raises(UnsupportedError, match="products are wrong by"):
        check_fp8(shape, device)
