"""Proofs of storage: who holds the bytes passes, who holds others, part of them, or an old answer does not."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import attrs
import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from fsn.core.ids import NodeId, ReplicaId
from fsn.core.merkle import LEAF_BYTES, Opening, merkle_root
from fsn.core.proofs import MAX_DIFFICULTY, Challenge, Proof, Verdict, network_id, prove, verify

NETWORK, NODE, NUMBER, REPLICA = (UUID(int=number) for number in range(1, 5))
CHALLENGE = Challenge(NETWORK, NodeId(NODE), NUMBER, ReplicaId(REPLICA), bytes(range(32)))
SIZES = st.sampled_from([1, 2, 4095, 4096, 4097, 8192, 12288, 12289, 40_000, 262_144, 262_160])
# Computed by the second implementation below over the bytes 0, 1, ..., 250, 0, 1, ...
GOLDEN = {
    (1, 1): "9beca666ccd60e4616fe25c037eaca68649ad039cb2e9c8d41c28a9bef685c4d",
    (4096, 1): "b30ae7b31719f5c4818e9214aab3f5019f29cb695638dffc434de35b08158d02",
    (4097, 4): "2cc0348c184b8f44a96cc295ced75877833cccc22360a043ceb6331315b7797c",
    (12288, 4): "ec85e5bac48f13fbfbabcf721717ca9f4bd5b65b0485545e47f0d86fcaf575cd",
    (262144, 4): "111dcd911d172dcb7e08cf43d8875a3f51652124b25c4aa1ca902d7f85afeb38",
    (262160, 4): "65d666cdc99d612af4944be2bb608501267f2f3a8a051d0ae514f2b444bf5a7f",
    (262160, 16): "b618576cfc2a857b53abfaa4630853fc03cf6889d369f0ae9b2d602cb2bf06bf",
}


def counting(size_bytes: int) -> bytes:
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


def chain(challenge: Challenge, data: bytes) -> bytes:
    """The design's formula, word for word, by one who holds the data."""
    leaves = [data[start : start + LEAF_BYTES] for start in range(0, len(data), LEAF_BYTES)]
    ids = challenge.network.bytes + challenge.node.bytes + challenge.challenge.bytes + challenge.replica.bytes
    link = blake3(b"fsn-proof-v1" + ids + challenge.seed).digest()
    for _ in range(challenge.difficulty):
        link = blake3(link + leaves[int.from_bytes(link, "big") % len(leaves)]).digest()
    return link


def judge(challenge: Challenge, proof: Proof, data: bytes) -> Verdict:
    return verify(challenge, proof, root=merkle_root(data), size_bytes=len(data))


@pytest.mark.parametrize(("size_bytes", "difficulty"), GOLDEN)
def test_golden_proofs(size_bytes: int, difficulty: int) -> None:
    """The proof over known bytes is the published one."""
    challenge = attrs.evolve(CHALLENGE, difficulty=difficulty)
    assert prove(challenge, counting(size_bytes)).proof_hash.hex() == GOLDEN[size_bytes, difficulty]


@given(SIZES, st.binary(min_size=32, max_size=32), st.integers(1, MAX_DIFFICULTY))
@example(262_160, bytes(32), 4)
def test_who_holds_the_bytes_passes(size_bytes: int, seed: bytes, difficulty: int) -> None:
    """A proof over the right bytes passes, and is the chain of the design."""
    challenge, data = attrs.evolve(CHALLENGE, seed=seed, difficulty=difficulty), counting(size_bytes)
    proof = prove(challenge, data)
    assert proof.proof_hash == chain(challenge, data)
    assert judge(challenge, proof, data) is Verdict.PASSED
    assert prove(challenge, memoryview(data)) == proof


@given(SIZES, st.data())
def test_other_bytes_fail(size_bytes: int, chance: st.DataObject) -> None:
    """One changed byte, even in a leaf that is not visited (its hash is in the paths of the others), or a cut, is noticed."""
    data = counting(size_bytes)
    challenge = attrs.evolve(CHALLENGE, difficulty=1)
    index = chance.draw(st.integers(0, size_bytes - 1))
    changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
    assert judge(challenge, prove(challenge, changed), data) is Verdict.BAD
    if index:
        assert judge(challenge, prove(challenge, data[:index]), data) is Verdict.BAD


@pytest.mark.parametrize(
    "other",
    [
        {"network": UUID(int=9)},
        {"node": NodeId(UUID(int=9))},
        {"challenge": UUID(int=9)},
        {"replica": ReplicaId(UUID(int=9))},
        {"seed": bytes(32)},
        {"difficulty": 5},
        {"difficulty": 3},
    ],
    ids=str,
)
def test_a_proof_serves_nobody_else(other: dict[str, Any]) -> None:
    """An answer to another challenge, or of another node, is no answer, though the bytes are the right ones."""
    data = counting(262_160)
    assert judge(CHALLENGE, prove(attrs.evolve(CHALLENGE, **other), data), data) is Verdict.BAD


def _without_last(opening: Opening) -> Opening:
    return attrs.evolve(opening, siblings=opening.siblings[:-1])


def _with_one_more(opening: Opening) -> Opening:
    return attrs.evolve(opening, siblings=(*opening.siblings, bytes(32)))


def _with_short(opening: Opening) -> Opening:
    return attrs.evolve(opening, siblings=(opening.siblings[0][:31], *opening.siblings[1:]))


def _with_other_leaf(opening: Opening) -> Opening:
    return attrs.evolve(opening, leaf=bytes(len(opening.leaf)))


def _with_longer_leaf(opening: Opening) -> Opening:
    return attrs.evolve(opening, leaf=opening.leaf + b"\0")


@pytest.mark.parametrize("change", [_without_last, _with_one_more, _with_short, _with_other_leaf, _with_longer_leaf])
@pytest.mark.parametrize("step", range(4))
def test_openings_are_exact(step: int, change: Callable[[Opening], Opening]) -> None:
    """An opening with more, less or other hashes or bytes than its own is refused, at each step."""
    data = counting(262_160)
    proof = prove(CHALLENGE, data)
    openings = list(proof.openings)
    openings[step] = change(openings[step])
    assert judge(CHALLENGE, attrs.evolve(proof, openings=tuple(openings)), data) is Verdict.BAD


@given(
    st.binary(max_size=40),
    st.lists(st.builds(Opening, st.binary(max_size=5000), st.lists(st.binary(max_size=40), max_size=9).map(tuple))),
    SIZES,
)
def test_anything_may_come(proof_hash: bytes, openings: list[Opening], size_bytes: int) -> None:
    """Whatever a node answers, it is judged and nothing raises."""
    assert judge(CHALLENGE, Proof(proof_hash, tuple(openings)), counting(size_bytes)) is Verdict.BAD


def test_challenges_have_limits() -> None:
    """A seed of another length, and a difficulty out of range, are mistakes of the caller."""
    with pytest.raises(ValueError, match="32 bytes"):
        attrs.evolve(CHALLENGE, seed=b"short")
    for difficulty in (0, MAX_DIFFICULTY + 1):
        with pytest.raises(ValueError, match="difficulty"):
            attrs.evolve(CHALLENGE, difficulty=difficulty)
    with pytest.raises(ValueError, match="at least one byte"):
        prove(CHALLENGE, b"")


def test_networks_have_ids_of_their_own() -> None:
    """The id of a network follows from its name, for ever."""
    assert network_id("main") == UUID("3f732fbb-8397-f1b4-2084-421f6a2633ce")
    assert network_id("main") != network_id("test")
