"""One line of text in the making: its tokens, and how many of them have KV in the cache."""

from __future__ import annotations

from array import array

from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.sampling import SampledToken, Sampling


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
        "has_left",
        "index",
        "is_plain",
        "matcher",
        "num_cached_tokens",
        "num_candidates",
        "num_computed",
        "num_pending",
        "num_prompt_tokens",
        "num_registered",
        "num_seats",
        "num_writable",
        "pending_row",
        "priority",
        "prompt_scores",
        "request_id",
        "salt",
        "sampling",
        "share",
        "share_weight",
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
        share: str = "",
        share_weight: float = 1.0,
        forks: int = 0,
        num_candidates: int = 0,
        matcher: TokenMatcher | None = None,
    ) -> None:
        self.request_id = request_id
        self.index = index
        self.tokens = tokens
        self.num_prompt_tokens = len(tokens) if num_prompt_tokens is None else num_prompt_tokens
        self.num_computed = 0
        self.num_pending = 0
        """Tokens that a step has been launched for and that are not in `tokens` yet."""
        self.pending_row = 0
        """Of the newest of them: which of the tokens that its step samples."""
        self.has_left = False
        """The scheduler does not know it any more; what is still on its way to it is nobody's."""
        self.num_cached_tokens: int | None = None
        """Prompt tokens that the prefix cache held at first admission; None before it."""
        self.num_registered = 0
        """Leading blocks that the prefix cache has been told of."""
        self.num_writable = 0
        """Tokens up to which KV may be written as things are: into blocks that are there and nobody else's. At most
        what the blocks hold; less says only that BlockManager.extend has to look."""
        self.block_table: array[int] = array("i")
        self.block_hashes: list[bytes] = []
        self.prompt_scores: list[SampledToken | None] | None = None
        """Of a prompt whose own log probabilities are asked for: one for each token, as they become known; the first
        has no score. Such a sequence takes nothing from the prefix cache, which does not know them."""
        if sampling.prompt_logprobs is not None:
            self.prompt_scores = [SampledToken(tokens[0]), *[None] * (self.num_prompt_tokens - 1)]
        self.sampling = sampling
        self.is_plain = sampling.is_plain and not num_candidates and matcher is None
        """Its tokens may be chosen on the device, by DeviceSampler."""
        self.takes_argmax = sampling.takes_argmax and not num_candidates and matcher is None
        self.priority = priority
        self.arrival = arrival
        self.salt = salt
        """Seeds the block hashes: blocks are shared only between sequences of the same salt (and adapter)."""
        self.share = share
        """Whose part of the engine it has, together with all others of the same name."""
        self.share_weight = share_weight
        self.forks = forks
        """Further choices that will split off when the prompt has been computed."""
        self.num_seats = 1 + forks
        """Of max_num_seqs, for itself and for those that will split off."""
        self.num_candidates = num_candidates
        """A beam's: a step samples so many tokens, the best first, instead of one. 0: this is no beam."""
        self.matcher = matcher
        """Of the constraint; it has accepted all generated tokens. None: the text may be anything."""

    @property
    def length(self) -> int:
        """Its tokens, and those that are on their way."""
        return len(self.tokens) + self.num_pending

    @property
    def runs_ahead(self) -> bool:
        """Its next token is chosen without looking at what it has so far, and no others split off with it: so the step
        after the next can be launched before anybody knows the token."""
        return self.is_plain and not self.forks

    @property
    def ends_for_sure(self) -> bool:
        """With the token that is on its way to it; how it ends is not known yet."""
        return self.num_pending > 0 and self.length - self.num_prompt_tokens >= self.sampling.max_tokens

    @property
    def num_generated(self) -> int:
        """Tokens that came after the prompt."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def order(self) -> tuple[int, int, int]:
        """Who goes first within a share: priority, then arrival, then choice. The greatest is preempted first."""
        return (self.priority, self.arrival, self.index)

    @property
    def needs_whole_prompt(self) -> bool:
        """Each of the prompt's tokens must be computed for this sequence itself, whatever the prefix cache holds."""
        return self.prompt_scores is not None and self.num_generated == 0

    def fork(self, index: int) -> Sequence:
        """Another choice with the same tokens so far; BlockManager.fork gives it the same blocks."""
        child = Sequence(
            self.request_id,
            list(self.tokens),
            self.sampling,
            arrival=self.arrival,
            index=index,
            num_prompt_tokens=self.num_prompt_tokens,
            priority=self.priority,
            salt=self.salt,
            share=self.share,
            share_weight=self.share_weight,
            num_candidates=self.num_candidates,
            matcher=None if self.matcher is None else self.matcher.fork(),
        )
        child.num_cached_tokens = self.num_cached_tokens
        child.prompt_scores = self.prompt_scores
        return child
