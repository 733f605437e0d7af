"""What a node earns on a day: one pure function, which the coordinator, the node and `fsn node earnings verify` all run.

    earned = floor(base * uptime factor * proof factor)
    base          = byte-seconds held * reward / (10^9 B * 2,592,000 s)        less the share of rounds that proved nothing
    uptime factor = min(1, (present/counted) / 0.95), 0 where present is less than half of counted
    proof factor  = max(0, 1 - 10 * missed/asked - 100 * failed/asked)

All in whole numbers; what is rounded is rounded down once, at the end. A month has 720 hours. Each rule stands on the statement with what
it changed, and these add up to what was earned.
"""

from typing import Final

import attrs
from blake3 import blake3

from fsn.core.ids import NodeId

__all__ = [
    "FIRST_HASH",
    "HELD_BACK_DAYS",
    "RETURN_DAYS",
    "DayInputs",
    "Line",
    "Statement",
    "daily_statement",
    "held_back",
    "statement_bytes",
    "statement_hash",
]

GB: Final = 10**9
MONTH_SECONDS: Final = 720 * 3600
UPTIME_PERCENT: Final = 95
"""With so much uptime nothing is taken off."""
HELD_BACK_PERCENT: Final = 25
HELD_BACK_DAYS: Final = 90
"""Of a node's first three months a quarter of the pay is held back, so that leaving without a drain costs something."""
RETURN_DAYS: Final = 365
"""What is held back is paid out when a node has left in order, or has been there for so long."""
FIRST_HASH: Final = bytes(32)
"""In place of the hash of the statement before, on a node's first one."""
_DOMAIN: Final = b"fsn-statement-v1\n"


def _not_negative(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative; got {value}")


@attrs.frozen
class DayInputs:
    """What a day's pay follows from. `day`: days since 1970-01-01 (UTC); `age_days`: whole days since the node was registered.

    `byte_seconds`: sealed bytes that both sides agreed on, times seconds. `present` of `counted` seconds the node was heard. `asked`,
    `missed` (or refused), `failed`: challenges of the rounds that began on the day; of `rounds` of them `unproved` blamed nobody, and
    prove nothing.
    `reward`: micro-credits for a GB and month, of tariff `tariff`.
    """

    node: NodeId
    day: int
    age_days: int = attrs.field(validator=_not_negative)
    byte_seconds: int = attrs.field(validator=_not_negative)
    present: int = attrs.field(validator=_not_negative)
    counted: int = attrs.field(validator=_not_negative)
    asked: int = attrs.field(validator=_not_negative)
    missed: int = attrs.field(validator=_not_negative)
    failed: int = attrs.field(validator=_not_negative)
    rounds: int = attrs.field(validator=_not_negative)
    unproved: int = attrs.field(validator=_not_negative)
    tariff: int = attrs.field(validator=_not_negative)
    reward: int = attrs.field(validator=_not_negative)


_NUMBERS: Final = tuple(name for name in attrs.fields_dict(DayInputs) if name != "node")


@attrs.frozen
class Line:
    """A rule, and by how many micro-credits it changed the pay."""

    rule: str
    micro_credits: int


@attrs.frozen
class Statement:
    """A day's pay: `earned` micro-credits, of which `held` are held back; the lines add up to `earned`."""

    inputs: DayInputs
    lines: tuple[Line, ...]
    earned: int
    held: int


def daily_statement(inputs: DayInputs) -> Statement:
    """The statement of a day. The same inputs give the same statement, everywhere."""
    steps = [
        ("storage", 1, 1),
        ("unproved rounds", *_proved(inputs)),
        ("uptime", *_uptime(inputs)),
        ("proofs", *_proofs(inputs)),
    ]
    over, under = inputs.byte_seconds * inputs.reward, GB * MONTH_SECONDS
    lines, before = [], 0
    for rule, numerator, denominator in steps:
        over, under = over * numerator, under * denominator
        amount = over // under
        lines.append(Line(rule, amount - before))
        before = amount
    return Statement(inputs, tuple(lines), before, held_back(before, inputs.age_days))


def held_back(earned: int, age_days: int) -> int:
    """How much of a day's pay is held back from a node of that age, rounded down."""
    return earned * HELD_BACK_PERCENT // 100 if age_days < HELD_BACK_DAYS else 0


def statement_bytes(statement: Statement, previous: bytes) -> bytes:
    """What is hashed: a line `name=value` for each input, each rule and each result, and `previous`, the hash of the statement before."""
    inputs = statement.inputs
    named = [("node", inputs.node.hex), *((name, str(getattr(inputs, name))) for name in _NUMBERS)]
    named += [(f"line {line.rule}", str(line.micro_credits)) for line in statement.lines]
    named += [("earned", str(statement.earned)), ("held", str(statement.held)), ("previous", previous.hex())]
    return _DOMAIN + b"".join(f"{name}={value}\n".encode() for name, value in named)


def statement_hash(statement: Statement, previous: bytes) -> bytes:
    """BLAKE3-256 of `statement_bytes`: what the coordinator signs, and the next statement carries."""
    return blake3(statement_bytes(statement, previous)).digest()


def _proved(inputs: DayInputs) -> tuple[int, int]:
    return (inputs.rounds - min(inputs.unproved, inputs.rounds), inputs.rounds) if inputs.rounds else (1, 1)


def _uptime(inputs: DayInputs) -> tuple[int, int]:
    """Where nobody was there to hear the node, or it was in declared maintenance all day, its uptime is not known and costs nothing."""
    if not inputs.counted:
        return 1, 1
    if 2 * inputs.present < inputs.counted:
        return 0, 1
    if 100 * inputs.present >= UPTIME_PERCENT * inputs.counted:
        return 1, 1
    return 100 * inputs.present, UPTIME_PERCENT * inputs.counted


def _proofs(inputs: DayInputs) -> tuple[int, int]:
    if not inputs.asked:
        return 1, 1
    return max(0, inputs.asked - 10 * inputs.missed - 100 * inputs.failed), inputs.asked
