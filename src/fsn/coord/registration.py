"""Nodes joining: a challenge, a signature over it, an API key."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import structlog

from fsn.coord.catalog import NodeRecord, NodeTransition
from fsn.coord.database.dial_backs import DialedNode, dialed_node
from fsn.coord.database.node_states import change_status, transitions_of
from fsn.coord.database.nodes import Registration, list_nodes, node_by_api_key_hash, node_by_id, register_node
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict, Invalid, NotFound, Unauthorized
from fsn.core.ids import NodeId, PeerId, UserId
from fsn.core.names import check_node_name, check_region
from fsn.core.units import MAX_SIZE_BYTES
from fsn.runtime.clock import Clock
from fsn.runtime.identity import peer_id_of, verify

__all__ = ["Challenge", "NodeApplication", "Registered", "Registrar"]

log = structlog.get_logger()

CHALLENGE_LIFE = timedelta(minutes=5)
SIGNED_PREFIX = b"fsn-register-v1"
"""What a node signs: this prefix | nonce | public key."""
_MARK_BYTES = 16


@attrs.frozen
class Challenge:
    """A nonce for one public key: 8 bytes issue time (ms) | 16 random bytes | 16 bytes HMAC-SHA256. Nothing is stored for it."""

    nonce: bytes
    expires_at: datetime


@attrs.frozen
class NodeApplication:
    """What a node sends to register."""

    public_key: bytes
    name: str
    capacity_bytes: int
    region: str | None
    operator: UserId | None
    nonce: bytes
    signature: bytes


@attrs.frozen
class Registered:
    """A node's id, and the API key that is told only now."""

    node: NodeId
    api_key: str = attrs.field(repr=False)


class Registrar:
    """Registers nodes, and shows them to anybody."""

    def __init__(
        self, db: Pool, *, clock: Clock, key: bytes, random_bytes: Callable[[int], bytes], coordinator: PeerId
    ) -> None:
        self._db = db
        self._coordinator = coordinator
        self._clock = clock
        self._key = hashlib.sha256(b"fsn-challenge-v1" + key).digest()
        self._random_bytes = random_bytes

    def challenge(self, public_key: bytes) -> Challenge:
        """A fresh nonce for the holder of `public_key` to sign."""
        _check_key(public_key)
        now = self._clock()
        head = int(now.timestamp() * 1000).to_bytes(8, "big") + self._random_bytes(16)
        return Challenge(head + self._mark(head, public_key), now + CHALLENGE_LIFE)

    async def register(self, application: NodeApplication) -> Registered:
        """Take the node in. The same key again is the same node with a new API key; the old one is void then. One that has left is
        joining again.

        Raises Invalid, Unauthorized (`challenge_invalid`, `signature_invalid`), Conflict when the challenge was used already.
        """
        _check(application)
        issued_at = self._issued_at(application.nonce, application.public_key)
        signed = SIGNED_PREFIX + application.nonce + application.public_key
        if not verify(application.public_key, signed, application.signature):
            raise Unauthorized("the signature does not match the public key", code="signature_invalid")
        return await self._insert(application, issued_at)

    async def nodes(self, after: NodeId | None, limit: int) -> Sequence[NodeRecord]:
        """A page of all nodes, in the order of their ids."""
        return await list_nodes(self._db, after, limit)

    async def node(self, node: NodeId) -> NodeRecord:
        """One node. Raises NotFound."""
        record = await node_by_id(self._db, node)
        if record is None:
            raise NotFound("there is no such node")
        return record

    async def reachability(self, node: NodeId) -> DialedNode | None:
        """How the node was reached when it was last dialled; None when it never was."""
        return await dialed_node(self._db, node)

    async def transitions(self, node: NodeId, before: int | None, limit: int) -> Sequence[NodeTransition]:
        """A page of what the node went through, the newest first; `before` is the last id of the page before. Raises Invalid, NotFound."""
        if before is not None and not 0 < before < 2**63:
            raise Invalid("the cursor is not one that this list gave")
        await self.node(node)
        return await transitions_of(self._db, node, before, limit)

    async def authenticate(self, api_key: str) -> NodeRecord:
        """Whose API key it is. Raises Unauthorized."""
        record = await node_by_api_key_hash(self._db, _hash(api_key))
        if record is None:
            raise Unauthorized("the API key is not one of ours", code="api_key_invalid")
        return record

    async def _insert(self, application: NodeApplication, issued_at: datetime) -> Registered:
        api_key = urlsafe_b64encode(self._random_bytes(32)).rstrip(b"=").decode()
        peer = peer_id_of(application.public_key)
        node = await register_node(
            self._db,
            Registration(
                node=NodeId(UUID(bytes=self._random_bytes(16), version=4)),
                peer=peer,
                public_key=application.public_key,
                name=application.name,
                capacity_bytes=application.capacity_bytes,
                region=application.region,
                operator=application.operator,
                api_key_hash=_hash(api_key),
                challenged_at=issued_at,
                registered_at=self._clock(),
                coordinator=self._coordinator,
            ),
        )
        if node is None:
            raise Conflict("the challenge was used already: ask for a new one", code="challenge_used")
        await change_status(
            self._db, node, "joining", reason="registered again", at=self._clock(), coordinator=self._coordinator
        )
        log.info("node_registered", node=str(node), peer=peer, capacity_bytes=application.capacity_bytes)
        return Registered(node, api_key)

    def _issued_at(self, nonce: bytes, public_key: bytes) -> datetime:
        head, mark = nonce[:24], nonce[24:]
        if not hmac.compare_digest(mark, self._mark(head, public_key)):
            raise Unauthorized("the challenge is not one of ours for this key", code="challenge_invalid")
        issued_at = datetime.fromtimestamp(int.from_bytes(head[:8], "big") / 1000, UTC)
        if not issued_at <= self._clock() <= issued_at + CHALLENGE_LIFE:
            raise Unauthorized("the challenge has expired: ask for a new one", code="challenge_invalid")
        return issued_at

    def _mark(self, head: bytes, public_key: bytes) -> bytes:
        return hmac.digest(self._key, head + public_key, "sha256")[:_MARK_BYTES]


def _hash(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()


def _check(application: NodeApplication) -> None:
    _check_key(application.public_key)
    check_node_name(application.name)
    if application.region is not None:
        check_region(application.region)
    if not 0 <= application.capacity_bytes <= MAX_SIZE_BYTES:
        raise Invalid(f"a node's capacity is 0..{MAX_SIZE_BYTES} bytes; got {application.capacity_bytes}")


def _check_key(public_key: bytes) -> None:
    if len(public_key) != 32:
        raise Invalid(f"an Ed25519 public key has 32 bytes; got {len(public_key)}")
