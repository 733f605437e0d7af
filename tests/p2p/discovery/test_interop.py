"""py-libp2p's own KadDHT, its protocol id set to ours, takes part: it finds what we publish, and we find what it publishes."""

import importlib
from datetime import UTC, datetime

import pytest
import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import Validator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from fsn.core.ids import PeerId
from fsn.core.kademlia import Located, key_of
from fsn.p2p.discovery.records import read_record, record_key, sign_record
from fsn.p2p.discovery.service import Discovery, DiscoveryPart, kad_protocol
from fsn.p2p.transport.base import Transport
from fsn.p2p.transport.libp2p import open_libp2p_transport
from fsn.p2p.wire.discovery_codec import KadKind, KadMessage, peer_bytes
from fsn.p2p.wire.messages import Contact
from fsn.runtime.clock import system_clock
from fsn.runtime.identity import Identity
from tests.p2p.transport.pairs import LOOPBACK
from tests.p2p.transport.stock import open_stock_host

NETWORK = "interop"
MODULES = ("common", "kad_dht", "peer_routing", "provider_store", "value_store")


class RecordValidator(Validator):
    """Our rules for what lies under /fsn/."""

    def validate(self, key: str, value: bytes) -> None:
        """Raises what `read_record` raises."""
        read_record(value, key=key.encode(), network=NETWORK, now=datetime.now(UTC))

    def select(self, key: str, values: list[bytes]) -> int:
        """The newest."""
        records = [read_record(value, key=key.encode(), network=NETWORK, now=datetime.now(UTC)) for value in values]
        return max(range(len(records)), key=lambda index: records[index].sequence)


@pytest.fixture
def our_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has its protocol id as a constant in five modules."""
    for name in MODULES:
        monkeypatch.setattr(importlib.import_module(f"libp2p.kad_dht.{name}"), "PROTOCOL_ID", kad_protocol(NETWORK))


def discovery_of(transport: Transport, identity: Identity, start: list[Contact]) -> Discovery:
    """Ours, which lets everybody store."""

    async def may_store(peer: PeerId) -> bool:
        return True

    part = DiscoveryPart(
        role="node",
        start=lambda: start,
        addresses=lambda: transport.addresses,
        may_store=may_store,
        keeps=lambda peer: True,
    )
    return Discovery(transport, identity, NETWORK, part, system_clock)


async def test_stock_kademlia_takes_part(our_protocol: None) -> None:
    """Put, get and find both ways, on loopback over TCP."""
    ours, theirs, third = Identity.generate(), Identity.generate(), Identity.generate()
    with trio.fail_after(60):
        async with open_libp2p_transport(ours, LOOPBACK) as transport, open_stock_host(theirs.seed) as host:
            dht = KadDHT(host, DHTMode.SERVER, strict_validation=True)
            dht.register_validator("fsn", RecordValidator())
            async with background_trio_service(dht):
                addresses = tuple(str(address).split("/p2p/")[0] for address in host.get_addrs())
                at_stock = Located(theirs.peer, key_of(peer_bytes(theirs.peer)), addresses)
                discovery = discovery_of(transport, ours, [Contact(theirs.peer, addresses)])

                # we ask and store there
                answer, _ = await discovery.ask(at_stock, KadMessage(KadKind.PING))
                assert answer.kind == KadKind.PING
                assert await discovery.publish() == 1
                key = record_key(ours.peer)
                answer, _ = await discovery.ask(at_stock, KadMessage(KadKind.GET_VALUE, key))
                found = discovery.checked(key, answer)
                assert found is not None
                assert found.addresses == tuple(transport.addresses)

                # it asks and stores here
                await host.connect(PeerInfo(ID.from_string(ours.peer), [Multiaddr(transport.addresses[0])]))
                await dht.routing_table.add_peer(
                    PeerInfo(ID.from_string(ours.peer), [Multiaddr(transport.addresses[0])])
                )
                their_key = record_key(theirs.peer).decode()
                raw = sign_record(
                    theirs, network=NETWORK, role="node", addresses=addresses, sequence=7, now=datetime.now(UTC)
                )
                await dht.put_value(their_key, raw)
                kept = discovery.store.get(record_key(theirs.peer), system_clock())
                assert kept is not None
                assert kept.addresses == addresses
                found = await discovery.find(theirs.peer)
                assert found is not None
                assert found.sequence == 7

                # what only we know, it finds through us
                discovery.learn(third.peer, ["/ip4/127.0.0.1/tcp/4009"])
                info = await dht.find_peer(ID.from_string(third.peer))
                assert info is not None
                assert [str(address) for address in info.addrs] == ["/ip4/127.0.0.1/tcp/4009"]
