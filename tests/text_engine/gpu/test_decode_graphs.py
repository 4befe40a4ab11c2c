"""Decode steps from graphs are those that are launched one kernel at a time; and nothing is baked into a graph."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests.text_engine.gpu.checked_capture import CheckedCapture
from tests.text_engine.llama_family import llama
from tests.tiny_models import save_model
from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.attention.kind import AttentionKind
from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.triton_decoder import TritonDecoder
from vfastml.text_engine.gpu.decode_graphs import DecodeGraphs, graph_sizes, is_capturable, known_tokens
from vfastml.text_engine.gpu.device_runner import DeviceRunner
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

LIMITS = Limits(64, 6, 32, 64, 4)
SAMPLINGS = [
    Sampling(max_tokens=9, temperature=0.0),
    Sampling(max_tokens=9, temperature=0.7, seed=3),
    Sampling(max_tokens=9, temperature=1.2, seed=4, top_p=0.8),
    Sampling(max_tokens=9, temperature=1.0, seed=5, top_k=7, min_p=0.01),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(llama(num_hidden_layers=1), tmp_path_factory.mktemp("llama"))


def runner_of(folder: Path, device: torch.device, capture: CheckedCapture | None = None) -> DeviceRunner:
    decoder = TritonDecoder(
        LlamaWeights.open(folder, torch.float32), device, AttentionKind("triton", 4, TritonAttention)
    )
    runner = DeviceRunner(decoder, LIMITS, (257,))
    if capture is not None:
        assert is_capturable(runner.forward)
        logits = torch.empty(6, decoder.vocab_size, device=device)
        graphs = DecodeGraphs(runner.forward, runner.sampler, runner.tokens, logits, 6 * 16, capture)
        graphs.capture()
        runner.use(graphs)
    return runner


def texts(runner: DeviceRunner, seed: int) -> list[list[int]]:
    """Of sequences that come and go, with each step launched before the tokens of the one before it are known."""
    rng = random.Random(seed)
    scheduler = Scheduler(BlockManager(64, 4), max_num_seqs=6, max_num_batched_tokens=32)
    sequences: list[Sequence] = []
    earlier = None
    for step in range(7):
        for _ in range(rng.randrange(3) if step < 4 else 0):
            prompt = [rng.randrange(256) for _ in range(rng.randrange(1, 9))]
            sampling = SAMPLINGS[len(sequences) % len(SAMPLINGS)]
            sequences.append(Sequence(str(len(sequences)), prompt, sampling, arrival=len(sequences)))
            scheduler.add(sequences[-1])
        batch = scheduler.schedule()
        launched = runner.launch(batch) if batch.rows else None
        scheduler.commit(batch)
        for row, sequence in enumerate(batch.sampling):
            sequence.num_pending += 1
            sequence.pending_row = row
        if earlier is not None:
            for sequence, tokens in zip(earlier[0].sampling, earlier[1].result(), strict=True):
                sequence.num_pending -= 1
                sequence.tokens.append(tokens[0].token)
        earlier = None if launched is None else (batch, launched)
    return [sequence.tokens[sequence.num_prompt_tokens :] for sequence in sequences]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_steps_from_graphs_are_those_without(folder: Path, device: torch.device, seed: int) -> None:
    capture = CheckedCapture()
    assert texts(runner_of(folder, device, capture), seed) == texts(runner_of(folder, device), seed)
    assert capture.num_replays > 2


def test_a_step_is_replayed_with_room_to_spare(folder: Path, device: torch.device) -> None:
    """Three rows run in the graph for four; contexts and blocks are others each time. One of them is sampled on the
    host, from the same logits."""
    capture = CheckedCapture()
    runner = runner_of(folder, device, capture)
    plain = runner_of(folder, device)
    scheduler = Scheduler(BlockManager(64, 4), max_num_seqs=6, max_num_batched_tokens=32)
    others = [Sampling(max_tokens=9, temperature=0.0, logprobs=2)]
    for number, sampling in enumerate([*SAMPLINGS[2:], *others]):
        scheduler.add(Sequence(str(number), list(range(5 + 3 * number)), sampling, arrival=number))
    for _ in range(3):
        batch = scheduler.schedule()
        found, expected = runner.run(batch), plain.run(batch)
        assert [one.token for (one,) in found] == [one.token for (one,) in expected]
        # A product of four rows is rounded otherwise than one of three.
        assert [one.score for (one,) in found] == pytest.approx([one.score for (one,) in expected], abs=1e-5)
        scheduler.commit(batch)
        for sequence, tokens in zip(batch.sampling, found, strict=True):
            sequence.tokens.append(tokens[0].token)
    assert capture.num_replays == 2


def test_numbers_of_rows_that_have_a_graph() -> None:
    assert graph_sizes(1) == [1]
    assert graph_sizes(6) == [1, 2, 4, 6]
    assert graph_sizes(20) == [1, 2, 4, 8, 16, 20]
    sizes = graph_sizes(512)
    assert sizes[:5] == [1, 2, 4, 8, 16]
    assert sizes[-3:] == [480, 496, 512]
    assert len(sizes) == len(set(sizes)) < 60


def test_tokens_that_only_the_device_knows() -> None:
    sampled = torch.tensor([70, 71, 72])
    assert known_tokens(torch.tensor([5, -1, -3, 0]), sampled).tolist() == [5, 70, 72, 0]
