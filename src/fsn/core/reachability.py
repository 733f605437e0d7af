"""Can a node be reached? What a dial-back may try, how it ends, and what follows from it."""

import ipaddress
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs

__all__ = ["DialOutcome", "DialResult", "Reach", "Verdict", "judge", "may_be_told", "refused_target", "telling_outcome"]


class DialOutcome(StrEnum):
    """How a fresh dial by a stranger ended."""

    REACHED = "reached"
    """The address answered and proved the peer id wanted."""
    REFUSED = "refused"
    """The host is there, and nothing listens on that port."""
    NO_ANSWER = "no_answer"
    WRONG_PEER = "wrong_peer"
    """Another peer proved itself there."""
    BROKEN = "broken"
    """Something answers that is no peer, or hangs up."""
    NOT_TRIED = "not_tried"


@attrs.frozen
class DialResult:
    """One address that was dialled."""

    address: str
    outcome: DialOutcome | str
    """A `DialOutcome`, or a word of a later version."""
    detail: str = ""


class Reach(StrEnum):
    """How others get to a node."""

    DIRECT = "direct"
    """A coordinator that dialled it anew got through."""
    OWN_CONNECTION = "own_connection"
    """Only through the connection that the node itself made; enough for everything that nodes do today."""
    UNTESTED = "untested"
    """Connected; whether more is possible is not known yet."""
    NONE = "none"
    """Not at all: no coordinator is connected."""


@attrs.frozen
class Verdict:
    """How others get to a node, why we think so, and at which addresses if it is directly."""

    reach: Reach
    reason: str
    addresses: tuple[str, ...] = ()


_ADVICE: Final[Mapping[str, str]] = {
    DialOutcome.WRONG_PEER: "another peer answers there: the forwarded port leads to another machine",
    DialOutcome.BROKEN: "something answers there that is not this node: the forwarded port leads to another program",
    DialOutcome.REFUSED: "the host is reached, and nothing listens on that port: forward it to this machine",
    DialOutcome.NO_ANSWER: "nothing answers there: a NAT or a firewall is in between; forward the port to change that",
}
"""The most telling outcome first."""


def judge(*, is_connected: bool, failure: str, results: Sequence[DialResult] | None) -> Verdict:
    """What follows from the last dial-back (`results`; None before the first) and from being connected to any coordinator.

    `failure` says why there is no connection, or why there was no test.
    """
    if not is_connected:
        return Verdict(Reach.NONE, failure or "no coordinator is connected")
    if results is None:
        return Verdict(Reach.UNTESTED, failure or "not tested yet")
    if reached := tuple(dict.fromkeys(each.address for each in results if each.outcome == DialOutcome.REACHED)):
        return Verdict(
            Reach.DIRECT, f"a coordinator dialled {', '.join(reached)} and was answered by this node", reached
        )
    if not results:
        return Verdict(Reach.OWN_CONNECTION, "there is no address to dial: this node announces none")
    outcome = telling_outcome(results)
    told = next(each for each in results if each.outcome == outcome)
    return Verdict(Reach.OWN_CONNECTION, f"{told.address}: {_ADVICE.get(outcome) or told.detail or outcome}")


def telling_outcome(results: Sequence[DialResult]) -> str:
    """The outcome that says most about what is in the way, or `reached`; `not_tried` where there was nothing to dial."""
    outcomes = [each.outcome for each in results]
    ranked = (DialOutcome.REACHED, *_ADVICE)
    return next((each for each in ranked if each in outcomes), outcomes[0] if outcomes else DialOutcome.NOT_TRIED)


def refused_target(ip: str, observed: str | None) -> str:
    """Why an asker who comes from `observed` may not have `ip` dialled; "" when he may.

    The address that he comes from is his own. Any other must be one of the public Internet: else strangers could look around in the
    network that the coordinator stands in.
    """
    target = _plain(ip)
    if target is None:
        return f"{ip!r} is no IP address"
    if observed is not None and target == _plain(observed):
        return ""
    if target.is_global and not target.is_multicast:
        return ""
    return f"{target} is neither public nor the address that the request came from"


def may_be_told(ip: str, told_from: str | None) -> bool:
    """Whether a peer at `told_from` may tell us to dial `ip`: addresses of a private network are believed only from within one.

    Without this, a stranger on the Internet could make us knock at doors inside our own network.
    """
    target, teller = _plain(ip), _plain(told_from) if told_from is not None else None
    if target is None or target.is_multicast or target.is_unspecified:
        return False
    if target.is_global:
        return True
    return teller is not None and (target == teller or not teller.is_global)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address; IPv4 written inside IPv6 is IPv4."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
