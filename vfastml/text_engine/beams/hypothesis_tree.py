"""The texts of a beam search as one tree: what they have in common is kept once, and is certain to be answered."""

from __future__ import annotations

from collections.abc import Iterator

from vfastml.text_engine.sampling import SampledToken


class Node:
    """A text: that of `parent` and one token more."""

    __slots__ = ("children", "num_holders", "parent", "sampled")

    def __init__(self, parent: Node | None, sampled: SampledToken | None) -> None:
        self.parent = parent
        self.sampled = sampled
        """None for the root alone."""
        self.children: dict[int, Node] = {}
        self.num_holders = 0


class HypothesisTree:
    """Texts that are held, as their last tokens, and nothing besides. Equal texts are one node. What is done for a
    token takes constant time on average, however long the texts are."""

    def __init__(self) -> None:
        self.root = Node(None, None)

    def extend(self, node: Node, sampled: SampledToken) -> Node:
        """Holds the text of `node` and one token more."""
        child = node.children.get(sampled.token)
        if child is None:
            child = node.children[sampled.token] = Node(node, sampled)
        child.num_holders += 1
        return child

    def release(self, node: Node) -> None:
        """Holds it once less. What no held text begins with is forgotten."""
        node.num_holders -= 1
        while node.num_holders == 0 and not node.children and node.parent is not None and node.sampled is not None:
            del node.parent.children[node.sampled.token]
            node = node.parent

    def advance_root(self) -> Iterator[SampledToken]:
        """The next tokens that all held texts begin with, each given once: the root moves on to the last of them."""
        while self.root.num_holders == 0 and len(self.root.children) == 1:
            [self.root] = self.root.children.values()
            self.root.parent = None
            if self.root.sampled is not None:
                yield self.root.sampled

    def path(self, node: Node) -> list[SampledToken]:
        """The tokens from the root on; the root's own is not among them."""
        tokens: list[SampledToken] = []
        while node is not self.root and node.sampled is not None and node.parent is not None:
            tokens.append(node.sampled)
            node = node.parent
        return tokens[::-1]
