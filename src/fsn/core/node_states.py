"""The states of a storage node, and how it may pass from one to another."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

import attrs

__all__ = [
    "NODE_STATES",
    "PREDECESSORS",
    "TAKES_CHUNKS",
    "TRANSITIONS",
    "NodeState",
    "Step",
    "is_allowed",
    "step_by_presence",
]

NodeState = Literal["joining", "online", "offline", "maintenance", "draining", "left", "disqualified"]
"""joining: registered, not heard yet. online, offline: heard by a coordinator, or by none. maintenance: declared away for a time.
draining: on its way out. left: gone, with nothing left on it. disqualified: judged; it is asked for nothing any more."""

NODE_STATES: Final[tuple[NodeState, ...]] = get_args(NodeState)

TRANSITIONS: Final[Mapping[NodeState, frozenset[NodeState]]] = {
    "joining": frozenset({"online", "maintenance", "draining", "left", "disqualified"}),
    "online": frozenset({"offline", "maintenance", "draining", "disqualified"}),
    "offline": frozenset({"online", "maintenance", "draining", "disqualified"}),
    "maintenance": frozenset({"online", "offline", "draining", "disqualified"}),
    "draining": frozenset({"online", "offline", "left", "disqualified"}),
    "left": frozenset({"joining", "disqualified"}),
    "disqualified": frozenset({"online", "offline"}),
}
"""Who is disqualified comes back by an administrator's word only; who has left, by registering again."""

PREDECESSORS: Final[Mapping[NodeState, frozenset[NodeState]]] = {
    to: frozenset(begin for begin, ends in TRANSITIONS.items() if to in ends) for to in NODE_STATES
}

TAKES_CHUNKS: Final[frozenset[NodeState]] = frozenset({"joining", "online", "offline"})
"""States in which a connected node is given new chunks; the others are declared or judged, and stay until that changes."""


@attrs.frozen
class Step:
    """A transition to make, and why."""

    to: NodeState
    reason: str


def is_allowed(begin: NodeState, end: NodeState) -> bool:
    """Whether a node may pass from `begin` to `end`; staying is no transition, and harmless."""
    return begin == end or end in TRANSITIONS[begin]


def step_by_presence(state: NodeState, *, is_heard: bool, why: str) -> Step | None:
    """What hearing a node, or hearing it no more, does to its state: what was declared or judged stays.

    `why` is the reason on record, but for the first heartbeat of all, which says so itself.
    """
    if is_heard and state == "joining":
        return Step("online", "first heartbeat")
    if is_heard and state == "offline":
        return Step("online", why)
    if not is_heard and state == "online":
        return Step("offline", why)
    return None
