"""Nodes joining: who proves a key gets in, once for each challenge, and stays the same node."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio

from fsn.coord.database.pool import Pool
from fsn.coord.registration import CHALLENGE_LIFE, SIGNED_PREFIX, NodeApplication, Registered, Registrar
from fsn.core.errors import Conflict, FsnError, Invalid, NotFound, Unauthorized
from fsn.core.ids import NodeId, PeerId
from fsn.runtime.identity import Identity

START = datetime(2030, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)
TEST_SECONDS = 20


@attrs.define
class HandClock:
    """Shows what the test says."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        """Set it forward (or back)."""
        self.now += timedelta(**delta)


@pytest.fixture
def clock() -> HandClock:
    """A clock moved by hand."""
    return HandClock()


@pytest.fixture
def registrar(pool: Pool, clock: HandClock) -> Registrar:
    """A registrar on a fresh database."""
    return registrar_with(pool, clock)


def registrar_with(pool: Pool, clock: HandClock, key: bytes = b"k" * 32) -> Registrar:
    """A registrar whose challenges are marked with `key`."""
    return Registrar(pool, clock=clock, key=key, random_bytes=secrets.token_bytes, coordinator=PeerId("c"))


def application(identity: Identity, nonce: bytes, **changes: Any) -> NodeApplication:
    """A signed application, then changed."""
    signature = identity.sign(SIGNED_PREFIX + nonce + identity.public_key)
    honest = NodeApplication(identity.public_key, "node", 10**12, "eu", None, nonce, signature)
    return attrs.evolve(honest, **changes)


async def join(registrar: Registrar, identity: Identity, **changes: Any) -> Registered:
    """Ask for a challenge and register."""
    return await registrar.register(application(identity, registrar.challenge(identity.public_key).nonce, **changes))


async def test_a_node_that_proves_its_key_is_in(registrar: Registrar, pool: Pool) -> None:
    """It has an id, its peer id, and an API key, of which the database keeps a hash only."""
    identity = Identity.generate()
    with trio.fail_after(TEST_SECONDS):
        registered = await join(registrar, identity)
        record = await registrar.node(registered.node)
        assert (record.peer_id, record.name, record.capacity_bytes, record.region, record.status) == (
            identity.peer, "node", 10**12, "eu", "joining",
        )  # fmt: skip
        assert (await registrar.authenticate(registered.api_key)).id == registered.node
        row = await pool.fetch_one("select nodes::text from nodes")
        assert row is not None
        assert registered.api_key not in row[0]


async def test_the_same_key_again_is_the_same_node_with_a_new_api_key(registrar: Registrar, clock: HandClock) -> None:
    """The id stays, what the node says of itself is renewed, and the old API key is void."""
    identity = Identity.generate()
    with trio.fail_after(TEST_SECONDS):
        first = await join(registrar, identity)
        clock.advance(seconds=1)
        second = await join(registrar, identity, name="renamed", capacity_bytes=5, region=None)
        assert second.node == first.node
        record = await registrar.node(first.node)
        assert (record.name, record.capacity_bytes, record.region) == ("renamed", 5, None)
        assert (await registrar.authenticate(second.api_key)).id == first.node
        with pytest.raises(Unauthorized) as caught:
            await registrar.authenticate(first.api_key)
        assert caught.value.code == "api_key_invalid"


async def test_a_challenge_is_good_once(registrar: Registrar, clock: HandClock) -> None:
    """Who overheard a registration cannot repeat it, nor one with an older challenge."""
    identity = Identity.generate()
    with trio.fail_after(TEST_SECONDS):
        older = registrar.challenge(identity.public_key).nonce
        clock.advance(seconds=1)
        nonce = registrar.challenge(identity.public_key).nonce
        registered = await registrar.register(application(identity, nonce))
        for replayed in (nonce, older):
            with pytest.raises(Conflict) as caught:
                await registrar.register(application(identity, replayed))
            assert caught.value.code == "challenge_used"
        assert (await registrar.authenticate(registered.api_key)).id == registered.node


async def test_a_challenge_lives_five_minutes(registrar: Registrar, clock: HandClock) -> None:
    """To the end of them, and no longer."""
    for late, is_good in ((timedelta(), True), (timedelta(milliseconds=1), False)):
        identity = Identity.generate()
        clock.now = START
        challenge = registrar.challenge(identity.public_key)
        assert challenge.expires_at == START + CHALLENGE_LIFE
        clock.now = START.replace(microsecond=123_000) + CHALLENGE_LIFE + late
        with trio.fail_after(TEST_SECONDS):
            if is_good:
                await registrar.register(application(identity, challenge.nonce))
            else:
                with pytest.raises(Unauthorized, match="expired"):
                    await registrar.register(application(identity, challenge.nonce))


async def test_a_challenge_from_the_future_is_refused(registrar: Registrar, clock: HandClock) -> None:
    """As after the clock was set back: it could be kept until its time."""
    identity = Identity.generate()
    nonce = registrar.challenge(identity.public_key).nonce
    clock.advance(hours=-1)
    with pytest.raises(Unauthorized) as caught:
        await registrar.register(application(identity, nonce))
    assert caught.value.code == "challenge_invalid"


async def test_a_challenge_is_for_one_key_and_one_network(registrar: Registrar, pool: Pool, clock: HandClock) -> None:
    """Neither another node's nor another coordinator's nonce is good, nor a changed or a cut one; a sister's is."""
    identity, other = Identity.generate(), Identity.generate()
    good = registrar.challenge(identity.public_key).nonce
    foreign = registrar_with(pool, clock, b"o" * 32).challenge(identity.public_key).nonce
    bad = [
        registrar.challenge(other.public_key).nonce,
        foreign,
        bytes([good[0] ^ 1]) + good[1:],
        good[:-1] + bytes([good[-1] ^ 1]),
        good[:-1],
        good + b"\0",
        good[:24],
        b"",
        bytes(40),
        b"\xff" * 40,
    ]
    with trio.fail_after(TEST_SECONDS):
        for nonce in bad:
            with pytest.raises(Unauthorized) as caught:
                await registrar.register(application(identity, nonce))
            assert caught.value.code == "challenge_invalid"
        await registrar_with(pool, clock).register(application(identity, good))


async def test_the_signature_must_be_the_keys_over_this_nonce(registrar: Registrar) -> None:
    """Another key's signature, one over another message, and what is no signature."""
    identity, other = Identity.generate(), Identity.generate()
    nonce = registrar.challenge(identity.public_key).nonce
    right = SIGNED_PREFIX + nonce + identity.public_key
    for signature in (
        other.sign(right),
        identity.sign(nonce + identity.public_key),
        identity.sign(SIGNED_PREFIX + nonce),
        identity.sign(right)[:-1],
        bytes(64),
        b"",
    ):
        with pytest.raises(Unauthorized) as caught:
            await registrar.register(application(identity, nonce, signature=signature))
        assert caught.value.code == "signature_invalid"


@pytest.mark.parametrize("size", [0, 31, 33])
async def test_a_key_of_another_length_is_refused(registrar: Registrar, size: int) -> None:
    """By the challenge and by the registration."""
    with pytest.raises(Invalid, match=f"32 bytes; got {size}"):
        registrar.challenge(bytes(size))
    with pytest.raises(Invalid):
        await registrar.register(application(Identity.generate(), b"", public_key=bytes(size)))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a\0b"},
        {"name": "x" * 101},
        {"region": "a\0b"},
        {"region": "\ud800"},
        {"region": ""},
        {"region": "x" * 101},
        {"capacity_bytes": -1},
        {"capacity_bytes": 2**63},
    ],
    ids=ascii,
)
async def test_what_cannot_stand_in_the_catalogue_is_refused(
    registrar: Registrar, pool: Pool, changes: dict[str, object]
) -> None:
    """With words, before the database sees it."""
    with trio.fail_after(TEST_SECONDS):
        with pytest.raises(Invalid):
            await join(registrar, Identity.generate(), **changes)
        assert await pool.fetch_one("select count(*) from nodes") == (0,)


async def test_a_known_key_that_registers_several_times_at_once_stays_one_node(pool: Pool, clock: HandClock) -> None:
    """Each challenge gets an answer or a conflict, and every answer names the same node."""
    for _ in range(40):
        identity, outcomes = Identity.generate(), list[object]()

        async def register(nonce: bytes, identity: Identity = identity, outcomes: list[object] = outcomes) -> None:
            try:
                outcomes.append((await registrar_with(pool, clock).register(application(identity, nonce))).node)
            except FsnError as error:
                outcomes.append(error.code)

        with trio.fail_after(TEST_SECONDS):
            known, nonces = (await join(registrar_with(pool, clock), identity)).node, []
            for _ in range(10):
                clock.advance(milliseconds=5)
                nonces.append(registrar_with(pool, clock).challenge(identity.public_key).nonce)
            async with trio.open_nursery() as nursery:
                for nonce in nonces:
                    nursery.start_soon(register, nonce)
        assert len(outcomes) == 10
        assert set(outcomes) - {"challenge_used"} == {known}


async def test_nodes_are_listed_in_pages(registrar: Registrar) -> None:
    """By id, without gaps and repetitions; who is not there is NotFound."""
    with trio.fail_after(TEST_SECONDS):
        joined = sorted([(await join(registrar, Identity.generate())).node for _ in range(5)])
        found: list[NodeId] = []
        while page := await registrar.nodes(found[-1] if found else None, 2):
            found += [record.id for record in page]
        assert found == joined
        with pytest.raises(NotFound):
            await registrar.node(NodeId(UUID(int=0)))


@pytest.mark.parametrize("api_key", ["", "nonsense", "\ud800", "\0", "x" * 100_000], ids=lambda key: ascii(key[:9]))
async def test_a_wrong_api_key_is_nobodys(registrar: Registrar, api_key: str) -> None:
    """Whatever text it is."""
    with trio.fail_after(TEST_SECONDS), pytest.raises(Unauthorized):
        await registrar.authenticate(api_key)
