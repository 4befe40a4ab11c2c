"""Our kernels against transformers' own modules: every level of instructions, every kind of step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.tiny_models import SHAPE, SLIDING_WINDOW, save_model
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.cpu_kernels.levels import LEVELS, cpu_features
from vfastml.text_engine.decoders.decoder import ForwardPass
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.native_decoder import NativeDecoder
from vfastml.text_engine.kv_cache import KVCache

HERE = [level.name for level in LEVELS if level.needs <= cpu_features()]
pytestmark = pytest.mark.skipif(not HERE, reason="kernels are for x86 with AVX2")
BLOCKS = 64


class Texts:
    """Some sequences in one cache, computed by any chunks."""

    def __init__(self, decoder: NativeDecoder, block_size: int = 16) -> None:
        self.cache = KVCache(decoder.kv_shapes, 4 * BLOCKS, block_size, decoder.dtype, decoder.device)
        self.forward: ForwardPass = decoder.on(self.cache)

    def run(self, *rows: tuple[int, int, list[int]], every: bool = False, asked: bool = True) -> torch.Tensor:
        """Rows of (sequence, place of the first token, tokens); logits of each row's last token, of all, or of none."""
        size = self.cache.block_size
        lengths = [len(tokens) for _, _, tokens in rows]
        starts = np.cumsum([0, *lengths]).astype(np.int32)
        positions = [np.arange(first, first + len(tokens)) for _, first, tokens in rows]
        # blocks of a sequence lie apart, and in no order
        tables = [sequence + 4 * ((np.arange(BLOCKS) * 7) % BLOCKS) for sequence, _, _ in rows]
        used = [table[: -(-(place[-1] + 1) // size)] for table, place in zip(tables, positions, strict=True)]
        slots = [table[place // size] * size + place % size for table, place in zip(tables, positions, strict=True)]
        index = np.arange(starts[-1]) if every else starts[1:] - 1
        index = index if asked else index[:0]
        inputs = BatchInputs(
            input_ids=torch.tensor([token for _, _, tokens in rows for token in tokens]),
            position_ids=torch.from_numpy(np.concatenate(positions)),
            slots=torch.from_numpy(np.concatenate(slots)),
            logits_index=torch.from_numpy(index.astype(np.int64)),
            query_starts=starts,
            context_lens=np.array([place[-1] + 1 for place in positions], dtype=np.int32),
            block_tables=np.concatenate(used).astype(np.int32),
            block_starts=np.cumsum([0, *map(len, used)]).astype(np.int32),
        )
        return self.forward(inputs).clone()


def native(folder: Path, dtype: torch.dtype, level: str = "auto", quantization: str | None = None) -> NativeDecoder:
    return NativeDecoder(LlamaWeights.open(folder, dtype), cpu_kernels.load(level), quantization)


@torch.inference_mode()
def oracle(folder: Path, tokens: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return model(torch.tensor([tokens]), use_cache=False).logits[0].float()


def prompt(length: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def odd_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shapes that fill no panel, no vector and no group; and such that fill them all."""
    folder = tmp_path_factory.mktemp("odd")
    shapes = {
        "odd": {
            "hidden_size": 52,
            "intermediate_size": 101,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 10,
        },
        "biased": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        "wide heads": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
        "wider heads": {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128},
        "calm": {"hidden_size": 96, "initializer_range": 0.05, "tie_word_embeddings": True},
        "many sharing": {"hidden_size": 112, "num_attention_heads": 56, "num_key_value_heads": 2, "head_dim": 8},
    }
    folders = {}
    for name, changes in shapes.items():
        torch.manual_seed(3)
        model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes}))
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        folders[name] = save_model(model, folder / name)
    torch.manual_seed(3)
    wide = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    windowed = MistralForCausalLM(MistralConfig(**{**SHAPE, **wide}, sliding_window=70))
    folders["wide heads, window"] = save_model(windowed, folder / "window")
    return folders


ODD = ["odd", "biased", "wide heads", "wider heads", "many sharing", "wide heads, window"]


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("name", ODD)
def test_every_logit_in_float32(odd_models: dict[str, Path], name: str, level: str) -> None:
    tokens = prompt(200)
    got = Texts(native(odd_models[name], torch.float32, level)).run((0, 0, tokens), every=True)
    assert error(got, oracle(odd_models[name], tokens)) < 1e-5


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("name", ["odd", "many sharing", "wide heads", "wider heads", "wide heads, window"])
def test_bfloat16_is_at_least_as_near_as_transformers_own(odd_models: dict[str, Path], name: str, level: str) -> None:
    tokens = prompt(200)
    got = Texts(native(odd_models[name], torch.bfloat16, level)).run((0, 0, tokens), every=True)
    exact = oracle(odd_models[name], tokens)
    assert error(got, exact) < 1.1 * error(oracle(odd_models[name], tokens, torch.bfloat16), exact)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("level", HERE)
def test_architectures_in_chunks_beside_others(tiny_models: dict[str, Path], architecture: str, level: str) -> None:
    folder = tiny_models[architecture]
    a, b, c = prompt(150, 1), prompt(61, 2), prompt(3 * SLIDING_WINDOW, 3)
    texts = Texts(native(folder, torch.float32, level), block_size=4)
    texts.run((0, 0, a[:33]))
    texts.run((0, 33, a[33:149]), (1, 0, b[:60]))
    last_a, last_b, last_c = texts.run((0, 149, a[149:]), (1, 60, b[60:]), (2, 0, c))
    for got, tokens in ((last_a, a), (last_b, b), (last_c, c)):
        assert error(got, oracle(folder, tokens)[-1]) < 1e-5


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize(
    ("dtype", "quantization"), [(torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, "int8")]
)
def test_a_row_does_not_depend_on_its_neighbours(
    odd_models: dict[str, Path], dtype: torch.dtype, quantization: str | None, level: str
) -> None:
    """Bit by bit, alone, beside others, in chunks, with one thread or several."""
    decoder = native(odd_models["wide heads"], dtype, level, quantization)
    tokens, others = prompt(140), [prompt(n, n) for n in (1, 12, 77)]
    alone = Texts(decoder).run((0, 0, tokens))[0]
    threads = torch.get_num_threads()
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        texts = Texts(decoder)
        torch.set_num_threads(threads)
        texts.run((1, 0, others[0]), (0, 0, tokens[:70]), (2, 0, others[1]))
        texts.run((0, 70, tokens[70:139]), (3, 0, others[2]))
        beside = texts.run((3, 77, [5]), (0, 139, tokens[139:]), (1, 1, [6]))[1]
        assert torch.equal(beside, alone), f"{number} threads"


@pytest.mark.parametrize("level", HERE)
def test_int8_is_near(odd_models: dict[str, Path], level: str) -> None:
    tokens = prompt(200)
    exact = oracle(odd_models["calm"], tokens)
    got = Texts(native(odd_models["calm"], torch.float32, level, "int8")).run((0, 0, tokens), every=True)
    assert 1e-3 < error(got, exact) < 0.05
    best = Texts(native(odd_models["calm"], torch.float32, HERE[0], "int8")).run((0, 0, tokens), every=True)
    assert error(got, best) < 0.01  # whole numbers are summed exactly by all levels


def test_only_what_is_asked_for_is_computed(odd_models: dict[str, Path]) -> None:
    tokens = prompt(30)
    texts = Texts(native(odd_models["odd"], torch.float32))
    every = texts.run((0, 0, tokens), every=True)
    assert every.shape == (30, SHAPE["vocab_size"])
    assert torch.equal(texts.run((1, 0, tokens)), every[-1:])


def test_a_broken_text_leaves_nothing_behind(tmp_path: Path) -> None:
    """One of its tokens is infinite; rows of hidden size 52 end in a padding, which must not keep what it became."""
    torch.manual_seed(3)
    odd = {"hidden_size": 52, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 10}
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **odd}))
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = torch.inf
    folder = save_model(model, tmp_path)
    texts = Texts(native(folder, torch.float32))
    clean = texts.run((0, 0, [1, 2, 3]))
    assert not texts.run((1, 0, [7, 7, 7])).isfinite().all()
    assert torch.equal(texts.run((0, 0, [1, 2, 3])), clean)


def test_steps_by_many_threads_on_few_cores(odd_models: dict[str, Path]) -> None:
    """Nobody is forgotten, woken too late or lets the next step run over him."""
    decoder = native(odd_models["odd"], torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(5)
    texts = Texts(decoder)
    torch.set_num_threads(threads)
    first = texts.run((0, 0, prompt(3)))
    for _ in range(500):
        assert torch.equal(texts.run((0, 0, prompt(3))), first)


def test_a_step_that_asks_for_no_logits(odd_models: dict[str, Path]) -> None:
    texts = Texts(native(odd_models["odd"], torch.float32))
    assert texts.run((0, 0, prompt(9)), asked=False).shape == (0, SHAPE["vocab_size"])
    assert torch.equal(
        texts.run((0, 9, [1])), Texts(native(odd_models["odd"], torch.float32)).run((0, 0, [*prompt(9), 1]))
    )


@pytest.mark.parametrize("name", ["odd", "biased", "wide heads, window"])
def test_int8_of_other_models(odd_models: dict[str, Path], name: str) -> None:
    """Untied, biased, windowed: as near as the random weights of these let it be."""
    tokens = prompt(100)
    exact = Texts(native(odd_models[name], torch.bfloat16)).run((0, 0, tokens), every=True)
    got = Texts(native(odd_models[name], torch.bfloat16, quantization="int8")).run((0, 0, tokens), every=True)
    assert 1e-4 < error(got, exact) < 0.4


def test_threads_end_with_their_pass(odd_models: dict[str, Path]) -> None:
    def num_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    decoder = native(odd_models["odd"], torch.float32)
    torch.set_num_threads(max(2, torch.get_num_threads()))
    texts = Texts(decoder)
    texts.run((0, 0, prompt(5)))
    busy = num_threads()
    del texts
    assert num_threads() < busy


def test_step_without_memory_does_no_harm_to_the_next(tiny_models: dict[str, Path]) -> None:
    """In a process of its own: memory that nobody owns any more would end it."""
    program = [sys.executable, "-m", "tests.text_engine.cpu_kernels.short_of_memory", str(tiny_models["llama"])]
    done = subprocess.run(program, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 2
