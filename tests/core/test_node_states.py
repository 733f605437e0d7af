"""The table of states: who may pass where, and what presence does."""

import pytest

from fsn.core.node_states import (
    NODE_STATES,
    PREDECESSORS,
    TAKES_CHUNKS,
    TRANSITIONS,
    NodeState,
    Step,
    is_allowed,
    step_by_presence,
)


def test_every_state_stands_in_the_table() -> None:
    """No state is forgotten, none is made up, and none leads to itself."""
    assert set(TRANSITIONS) == set(NODE_STATES)
    for begin, ends in TRANSITIONS.items():
        assert ends <= set(NODE_STATES) - {begin}


def test_every_state_is_reached_from_joining_and_left_again() -> None:
    """There is no state without a way in or out."""
    reached: set[NodeState] = {"joining"}
    wave = reached
    while wave:
        wave = {end for begin in wave for end in TRANSITIONS[begin]} - reached
        reached |= wave
    assert reached == set(NODE_STATES)
    assert all(TRANSITIONS.values())


def test_the_way_back_is_the_way_there_read_backwards() -> None:
    """The predecessors are those of the table."""
    assert {(b, e) for e, begins in PREDECESSORS.items() for b in begins} == {
        (b, e) for b, ends in TRANSITIONS.items() for e in ends
    }


@pytest.mark.parametrize(
    ("begin", "end", "allowed"),
    [
        ("joining", "online", True),
        ("joining", "offline", False),
        ("online", "left", False),
        ("offline", "left", False),
        ("maintenance", "left", False),
        ("draining", "left", True),
        ("draining", "maintenance", False),
        ("left", "online", False),
        ("left", "joining", True),
        ("disqualified", "joining", False),
        ("disqualified", "draining", False),
        ("disqualified", "offline", True),
        ("maintenance", "maintenance", True),
    ],
)
def test_who_may_pass(begin: str, end: str, allowed: bool) -> None:
    """One leaves by draining only; who is disqualified comes back by being reinstated only."""
    assert is_allowed(begin, end) is allowed  # type: ignore[arg-type]


def test_presence_moves_between_joining_online_and_offline_only() -> None:
    """What was declared or judged stays, whoever hears the node; and each step by presence is an allowed one."""
    for state in NODE_STATES:
        for is_heard in (True, False):
            step = step_by_presence(state, is_heard=is_heard, why="w")
            if step is not None:
                assert is_allowed(state, step.to)
            if state not in TAKES_CHUNKS:
                assert step is None
    assert step_by_presence("joining", is_heard=True, why="w") == Step("online", "first heartbeat")
    assert step_by_presence("joining", is_heard=False, why="w") is None
    assert step_by_presence("online", is_heard=False, why="w") == Step("offline", "w")
