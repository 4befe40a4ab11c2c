"""Which products our own kernel computes is measured, and whatever is chosen computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.text_engine.forced_run import forced_logits, mixed_texts
from tests.text_engine.llama_family import qwen2
from tests.tiny_models import save_model
from vfastml.text_engine.attention.kind import SDPA
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.skinny_tilings import ROW_COUNTS
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.gpu.product_tuning import products_of, tune
from vfastml.text_engine.triton_kernels.skinny_product import TILINGS, Tiling


@pytest.fixture
def decoder(tmp_path: Path, device: torch.device) -> TritonDecoder:
    folder = save_model(qwen2(num_hidden_layers=1), tmp_path)
    return TritonDecoder(LlamaWeights.open(folder, torch.float32), device, SDPA)


def test_the_fastest_is_taken_where_it_gains(decoder: TritonDecoder, device: torch.device) -> None:
    products = products_of(decoder)
    assert [product.name for product in products] == ["qkv", "o", "gate_up", "down", "lm_head"]
    calls: list[tuple[str, int]] = []

    def seconds(run: Callable[[], None]) -> float:
        if len(calls) % 19 == 0:
            run()
        product = products[len(calls) // (3 * (1 + len(TILINGS)))]
        num_rows = ROW_COUNTS[len(calls) // (1 + len(TILINGS)) % 3]
        calls.append((product.name, num_rows))
        tiling = product.tilings.best[num_rows]
        if tiling is None:
            return 1.0
        if product.name == "o":
            raise RuntimeError("out of resources")
        if product.name == "down":
            return 0.98
        return {TILINGS[1]: 0.5, TILINGS[2]: 0.8}.get(tiling, 2.0)

    tune(products, torch.zeros(1, device=device), seconds)
    best = {product.name: product.tilings.best for product in products}
    assert best["qkv"] == dict.fromkeys(ROW_COUNTS, TILINGS[1])
    assert best["o"] == best["down"] == dict.fromkeys(ROW_COUNTS)
    assert products[0].tilings.of(1) == products[0].tilings.of(3) == products[0].tilings.of(16) == TILINGS[1]
    assert products[0].tilings.of(0) is products[0].tilings.of(17) is None
    assert all(layer.qkv.tilings is products[0].tilings for layer in decoder.layers)  # type: ignore[attr-defined]


def test_logits_are_the_same_with_our_own_products(decoder: TritonDecoder, device: torch.device) -> None:
    texts = mixed_texts()[:3]
    plain = forced_logits(decoder, texts, budget=9)
    for product in products_of(decoder):
        product.tilings.best = {num_rows: Tiling(16, 16, 4, 2) for num_rows in ROW_COUNTS}
    own = forced_logits(decoder, texts, budget=9)
    for one, other in zip(own, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)
