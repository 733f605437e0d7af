"""Which nodes get the replicas."""

import random
from collections import Counter
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.ids import NodeId
from fsn.core.placement import Candidate, by_spread, network_prefix, place, place_round_robin

SIZE = 262_160


def node(number: int, **changed: object) -> Candidate:
    """A node that shares nothing with any other, unless changed."""
    plain = Candidate(NodeId(UUID(int=number)), f"operator {number}", f"prefix {number}", f"region {number}", 10**9)
    return attrs.evolve(plain, **changed)  # type: ignore[arg-type]  # any of the fields above


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("2a01:4f8:1:2:3:4:5:6", "2a01:4f8:1:2::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("10.1.2.3", None),
        ("192.168.1.1", None),
        ("::ffff:192.168.1.1", None),
        ("100.64.0.1", None),
        ("169.254.1.1", None),
        ("fe80::1%eth0", None),
        ("fd00::1", None),
        ("0.0.0.0", None),
        ("example.org", None),
        ("", None),
    ],
)
def test_public_addresses_have_a_prefix(address: str, prefix: str | None) -> None:
    """Only a public address says which network a node shares with others."""
    assert network_prefix(address) == prefix


names = st.sampled_from("abcd")
candidates = st.lists(
    st.builds(
        node,
        st.integers(0, 30),
        operator=names,
        prefix=st.none() | names,
        region=st.none() | names,
        free_bytes=st.sampled_from([0, SIZE - 1, SIZE, 10**9, 10**12]),
        reputation=st.floats(0, 1),
        in_flight=st.integers(0, 3),
    ),
    max_size=12,
    unique_by=lambda each: each.node,
)


def overlap(one: Candidate, other: Candidate) -> tuple[bool, bool, bool]:
    return (
        one.operator == other.operator,
        one.prefix is not None and one.prefix == other.prefix,
        one.region is not None and one.region == other.region,
    )


@pytest.mark.parametrize("strategy", ["weighted", "round_robin"])
@given(
    candidates, st.lists(st.builds(node, st.integers(25, 60), operator=names), max_size=3), st.integers(0, 6), st.data()
)
def test_every_pick_shares_the_least(
    strategy: str, free: list[Candidate], taken: list[Candidate], copies: int, data: st.DataObject
) -> None:
    """Distinct nodes with space, as many as wanted or usable; and none shares a domain while another would not."""
    seed = data.draw(st.integers(0, 1000))
    if strategy == "weighted":
        picks = place(free, copies=copies, size_bytes=SIZE, chance=random.Random(seed), taken=taken)
    else:
        picks = place_round_robin(free, copies=copies, size_bytes=SIZE, start=seed, taken=taken)
    holders = {each.node for each in taken}
    usable = {each.node: each for each in free if each.free_bytes >= SIZE and each.node not in holders}
    assert len(picks) == len(set(picks)) == min(copies, len(usable))
    held = list(taken)
    for pick in picks:
        chosen = usable.pop(pick)
        counts = [
            tuple(sum(shared) for shared in zip(*(overlap(each, holder) for holder in held), strict=True)) or (0, 0, 0)
            for each in (chosen, *usable.values())
        ]
        assert counts[0] == min(counts)
        held.append(chosen)


@given(candidates, st.integers(0, 2**32))
def test_a_seed_decides(free: list[Candidate], seed: int) -> None:
    """The same candidates and the same seed give the same nodes."""
    one, two = (place(free, copies=3, size_bytes=SIZE, chance=random.Random(seed)) for _ in range(2))
    assert one == two


def test_operators_come_before_prefixes_before_regions() -> None:
    """Where everything left shares something, it is the region first, then the prefix, the operator last of all."""
    holder = node(0, operator="o", prefix="p", region="r")
    same_operator, same_prefix, same_region = node(1, operator="o"), node(2, prefix="p"), node(3, region="r")
    free = [same_operator, same_prefix, same_region]
    picks = place(free, copies=3, size_bytes=SIZE, chance=random.Random(1), taken=[holder])
    assert picks == [same_region.node, same_prefix.node, same_operator.node]


def test_shared_domains_are_shared_evenly() -> None:
    """Six replicas on two operators are three on each."""
    free = [node(number, operator=str(number % 2)) for number in range(20)]
    picks = place(free, copies=6, size_bytes=SIZE, chance=random.Random(1))
    assert Counter(pick.int % 2 for pick in picks) == {0: 3, 1: 3}


def test_space_and_reputation_attract() -> None:
    """First picks follow free space times reputation: 1, 2 and 3 shares, the last at half its reputation."""
    free = [node(1, free_bytes=10**9), node(2, free_bytes=2 * 10**9), node(3, free_bytes=6 * 10**9, reputation=0.5)]
    chance = random.Random(7)
    firsts = Counter(place(free, copies=1, size_bytes=SIZE, chance=chance)[0].int for _ in range(6000))
    assert firsts[1] == pytest.approx(1000, rel=0.15)
    assert firsts[2] == pytest.approx(2000, rel=0.1)
    assert firsts[3] == pytest.approx(3000, rel=0.1)


def test_the_less_busy_of_two_wins() -> None:
    """Of two nodes drawn, the one with fewer transfers in flight is taken, so of two nodes always the idle one."""
    free = [node(1, in_flight=1), node(2, in_flight=0)]
    assert all(
        place(free, copies=1, size_bytes=SIZE, chance=random.Random(seed)) == [free[1].node] for seed in range(50)
    )


def test_a_node_without_reputation_is_the_last_resort() -> None:
    """A weight of nothing is drawn only where nothing else is left, and then evenly."""
    free = [node(1, reputation=0.0), node(2), node(3, reputation=0.0)]
    firsts = {place(free, copies=1, size_bytes=SIZE, chance=random.Random(seed))[0].int for seed in range(50)}
    lasts = {place(free[::2], copies=1, size_bytes=SIZE, chance=random.Random(seed))[0].int for seed in range(50)}
    assert firsts == {2}
    assert lasts == {1, 3}


def test_round_robin_takes_turns() -> None:
    """Nodes that share nothing are taken in order, from the start on, around the end."""
    free = [node(number) for number in range(5)]
    picks = [place_round_robin(free, copies=3, size_bytes=SIZE, start=start) for start in (0, 3, 6)]
    assert [[pick.int for pick in picked] for picked in picks] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_nobody_there_is_no_error() -> None:
    """Without candidates nothing is chosen; whether that is too few is the caller's question."""
    assert place([], copies=3, size_bytes=SIZE, chance=random.Random(1)) == []
    assert place_round_robin([], copies=3, size_bytes=SIZE, start=4) == []


@given(candidates, st.integers(0, 5))
def test_what_is_worth_keeping(found: list[Candidate], count: int) -> None:
    """Every node once; while there are n operators, the first n are of n operators."""
    distinct = list({each.node: each for each in found}.values())
    order = by_spread(distinct)
    assert sorted(order) == sorted(each.node for each in distinct)
    operators = {each.node: each.operator for each in distinct}
    first = order[: min(count, len(set(operators.values())))]
    assert len({operators[node] for node in first}) == len(first)
