"""The tree of a search's texts, against plain lists of tokens."""

from __future__ import annotations

import random

import pytest

from vfastml.text_engine.beams.hypothesis_tree import HypothesisTree, Node
from vfastml.text_engine.sampling import SampledToken


def common_prefix(texts: list[list[int]]) -> list[int]:
    length = 0
    while all(len(text) > length for text in texts) and len({text[length] for text in texts}) == 1:
        length += 1
    return texts[0][:length]


@pytest.mark.parametrize("seed", range(40))
def test_root_is_what_all_held_texts_begin_with(seed: int) -> None:
    rng = random.Random(seed)
    tree = HypothesisTree()
    tree.root.num_holders = 2
    held: list[tuple[Node, list[int]]] = [(tree.root, []), (tree.root, [])]
    certain: list[int] = []
    for _ in range(200):
        node, text = rng.choice(held)
        if len(held) < 6 and rng.random() < 0.4:
            token = rng.randrange(3)
            held.append((tree.extend(node, SampledToken(token)), [*text, token]))
        elif len(held) > 1:
            held.remove((node, text))
            tree.release(node)
        certain += [sampled.token for sampled in tree.advance_root()]
        assert certain == common_prefix([text for _, text in held])
        for node, text in held:
            assert [sampled.token for sampled in tree.path(node)] == text[len(certain) :]
        assert num_nodes(tree.root) <= 1 + sum(len(text) - len(certain) for _, text in held)


def num_nodes(node: Node) -> int:
    return 1 + sum(num_nodes(child) for child in node.children.values())


def test_equal_texts_are_one_node() -> None:
    tree = HypothesisTree()
    first, second = (tree.extend(tree.root, SampledToken(5)) for _ in range(2))
    assert first is second
    tree.release(first)
    assert [sampled.token for sampled in tree.path(second)] == [5]
