"""Coordinator and node find exactly what differs, whatever they hold."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from fsn.core.ids import ReplicaId
from fsn.core.reconciliation import (
    Difference,
    HeldReplica,
    PrefixSum,
    compare,
    differing,
    digest_words,
    replica_digest,
    sum_up,
)

ids = st.binary(min_size=16, max_size=16).map(lambda raw: ReplicaId(UUID(bytes=raw)))
held = st.builds(HeldReplica, ids, st.binary(min_size=16, max_size=16), st.integers(1, 262_160))
holdings = st.dictionaries(ids, held, max_size=30).map(
    lambda found: [attrs_with(key, each) for key, each in found.items()]
)


def attrs_with(replica: ReplicaId, each: HeldReplica) -> HeldReplica:
    """The same under its own id."""
    return HeldReplica(replica, each.digest, each.size_bytes)


def sums(replicas: list[HeldReplica]) -> dict[int, PrefixSum]:
    """By the first byte."""
    found: dict[int, list[HeldReplica]] = {}
    for each in replicas:
        found.setdefault(each.replica.bytes[0], []).append(each)
    return {prefix: sum_up(inside) for prefix, inside in found.items()}


def test_the_digest_is_the_one_on_the_page() -> None:
    """Golden: the first half of SHA-256 over id, root and size."""
    one = ReplicaId(UUID("000102030405060708090a0b0c0d0e0f"))
    digest = replica_digest(one, bytes(range(32)), 262_160)
    assert digest.hex() == "da2b4b2bd4ef0665d974007dda3d1ac7"
    assert digest_words(digest) == (int(digest.hex()[:16], 16), int(digest.hex()[16:], 16))


@given(holdings, st.randoms())
def test_sums_know_no_order(replicas: list[HeldReplica], chance: object) -> None:
    """In any order the sum is the same, within 64 bits, and adding up in parts gives the same."""
    shuffled = sorted(replicas, key=lambda _: chance.random())  # type: ignore[attr-defined]
    total = sum_up(replicas)
    assert sum_up(shuffled) == total == sum_up(replicas[:7]).plus(sum_up(replicas[7:]))
    assert 0 <= total.high < 2**64
    assert 0 <= total.low < 2**64
    assert total.size_bytes == sum(each.size_bytes for each in replicas)


@given(holdings, holdings, holdings)
def test_descending_finds_what_comparing_all_finds(
    shared: list[HeldReplica], ours: list[HeldReplica], theirs: list[HeldReplica]
) -> None:
    """What differs lies within the differing prefixes, and what agrees there and elsewhere is all that agrees."""
    listed = [*{each.replica: each for each in [*shared, *ours]}.values()]
    kept = [*{each.replica: each for each in [*theirs, *shared]}.values()]
    whole = compare(listed, kept)
    prefixes, agreed = differing(sums(listed), sums(kept))
    inside = compare(
        [each for each in listed if each.replica.bytes[0] in prefixes],
        [each for each in kept if each.replica.bytes[0] in prefixes],
    )
    assert Difference(inside.garbage, inside.lost, inside.damaged, inside.agreed.plus(agreed)) == whole


@given(holdings, holdings)
def test_every_difference_is_named_once(listed: list[HeldReplica], kept: list[HeldReplica]) -> None:
    """Garbage is held and not listed, a loss listed and not held, damage listed and held otherwise; the rest agrees."""
    found = compare(listed, kept)
    ours, theirs = ({each.replica: each for each in side} for side in (listed, kept))
    assert {each.replica for each in found.garbage} == theirs.keys() - ours.keys()
    assert {each.replica for each in found.lost} == ours.keys() - theirs.keys()
    assert {each.replica for each in found.damaged} == {
        key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]
    }
    assert found.agreed.count == len(listed) - len(found.lost) - len(found.damaged)
