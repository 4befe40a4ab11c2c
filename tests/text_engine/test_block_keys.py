"""The keys of the prefix cache: SHA-256 chained from the salt on, the same in every process."""

from __future__ import annotations

import ast
import hashlib
import inspect
from array import array

import pytest

from tests.text_engine.test_scheduler import FakeModel, make_scheduler, make_sequence
from vfastml.text_engine import block_manager


@pytest.mark.rule("S11")
def test_keys_are_a_sha256_chain_that_begins_with_the_salt() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence(list(range(13)), 0, salt=b"of one tenant")
    scheduler.add(sequence)
    FakeModel().run(scheduler)
    key = hashlib.sha256(b"of one tenant").digest()
    expected = []
    for start in (0, 4, 8):
        key = hashlib.sha256(key + array("i", range(start, start + 4)).tobytes()).digest()
        expected.append(key)
    assert sequence.block_hashes == expected


@pytest.mark.rule("S11")
def test_no_key_is_made_by_pythons_own_hash() -> None:
    tree = ast.parse(inspect.getsource(block_manager))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "hash" not in names
    assert "hashlib" in names
