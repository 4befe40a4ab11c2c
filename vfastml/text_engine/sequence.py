"""One line of text in the making: its tokens, and how many of them have KV in the cache."""

from __future__ import annotations

from array import array

from vfastml.text_engine.sampling import Sampling


class Sequence:
    """`tokens` are all known tokens, `num_computed` says how many have KV. A step computes some of the difference: that
    one rule is prefill, chunked prefill, decode, a prefix hit and the return from preemption.

    `block_table` holds the KV blocks in order (an int32 array, so that a step copies it without touching each entry),
    and `block_hashes` the prefix-cache keys of the blocks whose tokens are all known.
    """

    __slots__ = (
        "arrival",
        "block_hashes",
        "block_table",
        "forks",
        "index",
        "num_cached_tokens",
        "num_computed",
        "num_prompt_tokens",
        "num_registered",
        "num_writable",
        "priority",
        "request_id",
        "salt",
        "sampling",
        "takes_argmax",
        "tokens",
    )

    def __init__(
        self,
        request_id: str,
        tokens: list[int],
        sampling: Sampling,
        *,
        arrival: int,
        index: int = 0,
        num_prompt_tokens: int | None = None,
        priority: int = 0,
        salt: bytes = b"",
        forks: int = 0,
    ) -> None:
        self.request_id = request_id
        self.index = index
        self.tokens = tokens
        self.num_prompt_tokens = len(tokens) if num_prompt_tokens is None else num_prompt_tokens
        self.num_computed = 0
        self.num_cached_tokens: int | None = None
        """Prompt tokens that the prefix cache held at first admission; None before it."""
        self.num_registered = 0
        """Leading blocks that the prefix cache has been told of."""
        self.num_writable = 0
        """Tokens up to which KV may be written as things are: into blocks that are there and nobody else's. At most
        what the blocks hold; less says only that BlockManager.extend has to look."""
        self.block_table: array[int] = array("i")
        self.block_hashes: list[bytes] = []
        self.sampling = sampling
        self.takes_argmax = sampling.takes_argmax
        self.priority = priority
        self.arrival = arrival
        self.salt = salt
        """Seeds the block hashes: blocks are shared only between sequences of the same salt (and adapter)."""
        self.forks = forks
        """Further choices that will split off when the prompt has been computed."""

    @property
    def num_uncomputed(self) -> int:
        """Tokens that are known but have no KV yet; at least 1 while the sequence runs."""
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        """Tokens that came after the prompt."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def order(self) -> tuple[int, int, int]:
        """Who goes first: priority, then arrival, then choice. The greatest is preempted first."""
        return (self.priority, self.arrival, self.index)

    def fork(self, index: int) -> Sequence:
        """Another choice with the same tokens so far; BlockManager.fork gives it the same blocks."""
        return Sequence(
            self.request_id,
            list(self.tokens),
            self.sampling,
            arrival=self.arrival,
            index=index,
            num_prompt_tokens=self.num_prompt_tokens,
            priority=self.priority,
            salt=self.salt,
        )
