"""Routing tables stay small, and lookups end, at the nearest peers there are, whatever they are told."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.ids import PeerId
from fsn.core.kademlia import ALPHA, BUCKET_PEERS, MOST_ASKED, Located, Lookup, RoutingTable, key_of

OWN = PeerId("us")


def located(number: int) -> Located:
    """A peer of many."""
    return Located(PeerId(f"p{number}"), key_of(str(number).encode()))


def table_of(own: int, peers: list[Located]) -> RoutingTable:
    """One that was told of all these."""
    table = RoutingTable(own)
    for peer in peers:
        table.add(peer)
    return table


def run(
    lookup: Lookup, tables: dict[PeerId, RoutingTable], target: int, *, dead: frozenset[PeerId] = frozenset()
) -> int:
    """Answer everything that a lookup asks, out of the tables of those asked; how many were asked."""
    asked: Counter[PeerId] = Counter()
    while not lookup.is_done:
        now = list(lookup.to_ask())
        assert len(now) <= ALPHA
        assert now, "it is not done, and asks nobody"
        for peer in now:
            asked[peer.peer] += 1
            if peer.peer in dead:
                lookup.failed(peer)
            else:
                lookup.answered(peer, tables[peer.peer].closest(target))
    assert not asked or max(asked.values()) == 1
    return asked.total()


def test_a_table_keeps_whom_it_has() -> None:
    """Twenty of each distance; newcomers push nobody out, those that fail make room, and we are not in our own table."""
    table = table_of(0, [located(n) for n in range(5000)])
    buckets = Counter(each.key.bit_length() for each in table.closest(0, 10_000))
    assert max(buckets.values()) == BUCKET_PEERS
    first, late = located(0), next(peer for n in range(5000, 6000) if not table.add(peer := located(n)))
    assert first.peer in table
    assert late.peer not in table
    victim = next(each for each in table.closest(0, 10_000) if each.key.bit_length() == late.key.bit_length())
    table.remove(victim.peer)
    table.remove(victim.peer)
    assert table.add(late)
    assert not table.add(Located(OWN, 0))


def test_an_entry_takes_new_addresses() -> None:
    """Also in a full bucket: it is the same peer."""
    table = table_of(0, [located(n) for n in range(100)])
    known = table.closest(0, 1)[0]
    assert table.add(Located(known.peer, known.key, ("/new",)))
    assert table.closest(0, 1)[0].addresses == ("/new",)


@given(st.integers(0, 2**32), st.integers(1, 300), st.floats(0, 0.5))
def test_a_lookup_finds_the_nearest_living_peer(seed: int, count: int, dead_share: float) -> None:
    """From one living peer of a network with honest tables, past the dead ones, asking few."""
    chance = Random(seed)
    peers = [located(n) for n in range(count)]
    tables = {peer.peer: table_of(peer.key, chance.sample(peers, count)) for peer in peers}
    dead = frozenset(peer.peer for peer in peers if chance.random() < dead_share)
    living = [peer for peer in peers if peer.peer not in dead]
    if not living:
        return
    target = chance.getrandbits(256)
    lookup = Lookup(target, [chance.choice(living)], own=OWN)
    asked = run(lookup, tables, target, dead=dead)
    assert asked <= min(MOST_ASKED, count)
    if dead_share == 0:
        assert lookup.closest[0] == min(peers, key=lambda peer: peer.key ^ target)


@given(st.integers(0, 2**32))
def test_a_lookup_among_liars_ends(seed: int) -> None:
    """Peers that invent ever nearer peers get sixty questions out of us, and no more than eighty of their inventions are remembered."""
    chance = Random(seed)
    target = chance.getrandbits(256)
    lookup = Lookup(target, [located(0)], own=OWN)
    number = 0
    for _ in range(1000):
        if lookup.is_done:
            break
        for peer in lookup.to_ask():
            invented = []
            for _ in range(chance.randrange(200)):
                number += 1
                invented.append(Located(PeerId(f"liar{number}"), target ^ chance.getrandbits(chance.randrange(1, 256))))
            lookup.answered(peer, [*invented, Located(OWN, target), peer])
            assert len(lookup._new) <= 4 * BUCKET_PEERS
    assert lookup.is_done
    assert lookup.asked <= MOST_ASKED
    assert OWN not in {peer.peer for peer in lookup.closest}


def test_a_lookup_without_anybody_is_done() -> None:
    """There is nobody to ask."""
    assert Lookup(1, [], own=OWN).is_done
    assert Lookup(1, [Located(OWN, 1)], own=OWN).is_done


def test_a_key_is_sha_256() -> None:
    """As in libp2p's kad-dht."""
    assert key_of(b"").to_bytes(32, "big").hex().startswith("e3b0c44298fc1c14")
    assert key_of(b"a") != pytest.approx(0)
