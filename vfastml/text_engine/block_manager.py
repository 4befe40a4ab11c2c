"""Which KV block belongs to whom: reference counts, prefix cache, least-recently-used reuse, copy-on-write.

A block is in exactly one state: held (reference count above 0) or free. A free block may still hold KV that the prefix
cache knows; it is found again until the block is taken for something else, the longest unused first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from vfastml.text_engine.sequence import Sequence

_NO_HASH = b""


@dataclass(slots=True)
class _Block:
    ref_count: int = 0
    key: bytes = _NO_HASH
    """The prefix-cache key, while the cache knows this block."""
    parent: bytes = _NO_HASH
    tokens: bytes = b""


class BlockManager:
    """Hands out `num_blocks` blocks of `block_size` tokens. Knows no tensor: a copy that is due is returned."""

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._caching = enable_prefix_caching
        self._blocks = [_Block() for _ in range(num_blocks)]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        """In the order of reuse: the first is taken next."""
        self._cached: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, those with cached prefixes included."""
        return len(self._free)

    def admit(self, sequence: Sequence, *, spare: int = 0) -> bool:
        """Gives a sequence without blocks its cached prefix, and sets `num_computed` to it. False, with nothing
        changed, if the blocks for all its tokens and one more, beside `spare` others, are not free."""
        hits = self._cached_prefix(sequence)
        revived = sum(self._blocks[block].ref_count == 0 for block in hits)
        wanted = self._blocks_for(sequence.length + 1) - len(hits) + revived
        if wanted + spare > self.num_free:
            return False
        for block in hits:
            self._hold(block)
        sequence.block_table.extend(hits)
        sequence.num_computed = len(hits) * self.block_size
        sequence.num_registered = len(hits)
        return True

    def looks_up(self, sequence: Sequence) -> bool:
        """Whether the prefix cache is asked for its prompt."""
        return self._caching and not sequence.needs_whole_prompt

    def num_owed(self, sequence: Sequence) -> int:
        """Blocks for its tokens that an admitted sequence does not hold yet."""
        return max(0, self._blocks_for(sequence.length) - len(sequence.block_table))

    def can_extend(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether `extend` would find enough free blocks."""
        return self._num_new_blocks(sequence, num_tokens) + self._needs_copy(sequence) <= self.num_free

    def extend(self, sequence: Sequence, num_tokens: int) -> list[tuple[int, int]]:
        """Makes room for KV of the next `num_tokens` tokens; without it they may be as many as `num_writable` allows.
        Returns the block copies (from, to) that must be done before they are computed: a last block that others also
        read is replaced by a copy of its own."""
        copies: list[tuple[int, int]] = []
        if self._needs_copy(sequence):
            last = sequence.num_computed // self.block_size
            shared, own = sequence.block_table[last], self._take()
            sequence.block_table[last] = own
            self._release_block(shared)
            copies.append((shared, own))
        for _ in range(self._num_new_blocks(sequence, num_tokens)):
            sequence.block_table.append(self._take())
        sequence.num_writable = len(sequence.block_table) * self.block_size
        return copies

    def commit(self, sequence: Sequence, num_tokens: int) -> None:
        """KV of the next `num_tokens` tokens is in the cache, for whatever is computed from now on: blocks that became
        full can be found by others, as soon as their tokens are known."""
        sequence.num_computed += num_tokens
        if not self._caching or sequence.num_computed < (sequence.num_registered + 1) * self.block_size:
            return
        num_full = min(sequence.num_computed, len(sequence.tokens)) // self.block_size
        self._hash_blocks(sequence, num_full)
        while sequence.num_registered < num_full:
            self._register(sequence, sequence.num_registered)
            sequence.num_registered += 1

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """The child reads all of the parent's blocks; whoever writes into the last one first gets a copy."""
        for block in parent.block_table:
            self._hold(block)
        child.block_table = array("i", parent.block_table)
        child.block_hashes = list(parent.block_hashes)
        child.num_computed = parent.num_computed
        child.num_registered = parent.num_registered
        parent.num_writable = child.num_writable = 0

    def release(self, sequence: Sequence) -> None:
        """Gives all blocks back. The tail is reused before the head, so that the prefix stays findable longest."""
        for block in reversed(sequence.block_table):
            self._release_block(block)
        sequence.block_table = array("i")
        sequence.num_computed = 0
        sequence.num_registered = 0
        sequence.num_writable = 0

    def check_integrity(self, sequences: Collection[Sequence]) -> None:
        """Recounts everything from the live sequences. Raises AssertionError if a count or a list is wrong."""
        held = Counter(block for sequence in sequences for block in sequence.block_table)
        for number, block in enumerate(self._blocks):
            _check(block.ref_count == held[number], f"block {number}: count {block.ref_count}, held {held[number]}")
            _check((block.ref_count == 0) == (number in self._free), f"block {number}: free list is wrong")
            if block.key:
                _check(self._cached.get(block.key) == number, f"block {number}: its key leads elsewhere")
        for key, number in self._cached.items():
            _check(self._blocks[number].key == key, f"block {number}: cached under a key that is not its own")
        for sequence in sequences:
            writable = range(sequence.num_computed // self.block_size, self._blocks_for(sequence.num_writable))
            for position in writable:
                _check(held[sequence.block_table[position]] == 1, f"block {position} of a row is not for it to write")

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        """Cached blocks for the front of the sequence; never all of it, because the last token must be computed to get
        logits."""
        if not self.looks_up(sequence):
            return []
        num_usable = (len(sequence.tokens) - 1) // self.block_size
        self._hash_blocks(sequence, num_usable)
        hits: list[int] = []
        for position in range(num_usable):
            number = self._cached.get(sequence.block_hashes[position])
            if number is None or not self._same_content(number, sequence, position):
                break
            hits.append(number)
        return hits

    def _hash_blocks(self, sequence: Sequence, num_blocks: int) -> None:
        hashes = sequence.block_hashes
        while len(hashes) < num_blocks:
            parent = self._parent_hash(sequence, len(hashes))
            hashes.append(hashlib.sha256(parent + self._token_bytes(sequence, len(hashes))).digest())

    def _parent_hash(self, sequence: Sequence, position: int) -> bytes:
        return sequence.block_hashes[position - 1] if position else hashlib.sha256(sequence.salt).digest()

    def _token_bytes(self, sequence: Sequence, position: int) -> bytes:
        start = position * self.block_size
        return array("i", sequence.tokens[start : start + self.block_size]).tobytes()

    def _same_content(self, number: int, sequence: Sequence, position: int) -> bool:
        """A hash is only a hint: the tokens, and what came before them, decide."""
        block = self._blocks[number]
        same_parent = block.parent == self._parent_hash(sequence, position)
        return same_parent and block.tokens == self._token_bytes(sequence, position)

    def _register(self, sequence: Sequence, position: int) -> None:
        key = sequence.block_hashes[position]
        if key in self._cached:
            return  # the same content was computed twice at the same time; one of them is enough
        number = sequence.block_table[position]
        block = self._blocks[number]
        block.key, block.parent = key, self._parent_hash(sequence, position)
        block.tokens = self._token_bytes(sequence, position)
        self._cached[key] = number

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _num_new_blocks(self, sequence: Sequence, num_tokens: int) -> int:
        return self._blocks_for(sequence.num_computed + num_tokens) - len(sequence.block_table)

    def _needs_copy(self, sequence: Sequence) -> bool:
        position = sequence.num_computed // self.block_size
        if position >= len(sequence.block_table):
            return False
        return self._blocks[sequence.block_table[position]].ref_count > 1

    def _take(self) -> int:
        number, _ = self._free.popitem(last=False)
        block = self._blocks[number]
        if block.key:
            del self._cached[block.key]
            block.key = block.parent = _NO_HASH
            block.tokens = b""
        block.ref_count = 1
        return number

    def _hold(self, number: int) -> None:
        block = self._blocks[number]
        if block.ref_count == 0:
            del self._free[number]
        block.ref_count += 1

    def _release_block(self, number: int) -> None:
        block = self._blocks[number]
        block.ref_count -= 1
        if block.ref_count == 0:
            self._free[number] = None
            if not block.key:
                self._free.move_to_end(number, last=False)  # nobody can find it: use it before a cached one


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
