"""Answering DHT questions: whoever asks, within bounds; records are taken from their own signer only, if it may store here at all."""

import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import attrs
import structlog
import trio

from fsn.core.errors import FsnError, Invalid, ProtocolViolation
from fsn.core.ids import PeerId
from fsn.core.kademlia import Located, RoutingTable, key_of
from fsn.core.rates import Rate, take
from fsn.p2p.discovery.records import PeerRecord, RecordStore, read_record, record_key
from fsn.p2p.transport.base import Stream
from fsn.p2p.wire.discovery_codec import MAX_KAD_BYTES, KadKind, KadMessage, KadPeer, decode_kad, encode_kad, peer_bytes
from fsn.p2p.wire.framing import FrameDecoder

__all__ = ["DhtServer", "MayStore"]

log = structlog.get_logger("fsn.p2p")

MAX_STREAMS: Final = 64
MAX_STREAMS_OF_ONE: Final = 4
IDLE_SECONDS: Final = 60.0
SENDING_SECONDS: Final = 10.0
QUESTIONS: Final = Rate(per_second=10.0, burst=40)
"""Of one peer. Who asks more waits."""
MAX_REMEMBERED: Final = 1000
READ_BYTES: Final = 16_384

MayStore = Callable[[PeerId], Awaitable[bool]]


@attrs.define(eq=False)
class DhtServer:
    """What we answer. Streams beyond 64, or 4 of one peer, are reset; each has a minute between questions."""

    network: str
    table: RoutingTable
    store: RecordStore
    clock: Callable[[], datetime]
    may_store: MayStore
    note_record: Callable[[PeerRecord], None]
    """Told of each record that was new here."""
    own_record: Callable[[], PeerRecord | None]
    _streams: Counter[PeerId] = attrs.field(factory=Counter)
    _full_at: OrderedDict[PeerId, float] = attrs.field(factory=OrderedDict)

    async def serve(self, stream: Stream) -> None:
        """Answer until the peer ends the stream, is silent for a minute, or breaks the protocol: then it is reset."""
        if self._streams.total() >= MAX_STREAMS or self._streams[stream.peer] >= MAX_STREAMS_OF_ONE:
            await trio.aclose_forcefully(stream)
            return
        self._streams[stream.peer] += 1
        try:
            await self._answer_all(stream)
        except (FsnError, trio.TooSlowError) as error:
            log.debug("dht_stream_reset", peer=stream.peer, reason=str(error) or "too slow")
            await trio.aclose_forcefully(stream)
        finally:
            self._streams[stream.peer] -= 1
            self._streams += Counter()  # forgets those with none

    async def _answer_all(self, stream: Stream) -> None:
        frames = FrameDecoder(MAX_KAD_BYTES)
        while True:
            with trio.fail_after(IDLE_SECONDS):
                data = await stream.receive_some(READ_BYTES)
            if not data:
                return
            for frame in frames.feed(data):
                await self._wait_turn(stream.peer)
                answer = await self.answer(stream.peer, decode_kad(frame))
                with trio.fail_after(SENDING_SECONDS):
                    await stream.send_all(encode_kad(answer))

    async def _wait_turn(self, peer: PeerId) -> None:
        """Each question takes a token; who has none waits for one."""
        taken = take(QUESTIONS, self._full_at.get(peer, -math.inf), trio.current_time())
        # Who has none goes into debt and waits it out: that is at most a few questions long, for each stream asks one at a time.
        self._full_at[peer] = taken.full_at if not taken.wait_seconds else taken.full_at + 1 / QUESTIONS.per_second
        self._full_at.move_to_end(peer)
        if len(self._full_at) > MAX_REMEMBERED:
            self._full_at.popitem(last=False)
        await trio.sleep(taken.wait_seconds)

    async def answer(self, peer: PeerId, question: KadMessage) -> KadMessage:
        """What `peer` is told. Raises `Invalid` or `ProtocolViolation`: the specification has the stream reset then."""
        match question.kind:
            case KadKind.PING:
                return KadMessage(KadKind.PING)
            case KadKind.PUT_VALUE:
                return await self._put(peer, question)
            case KadKind.GET_VALUE:
                record = self._record(question.key)
                return attrs.evolve(
                    question, value=record.raw if record else None, closer=self._closer(peer, question.key)
                )
            case KadKind.FIND_NODE:
                return attrs.evolve(question, value=None, closer=self._closer(peer, question.key))

    def _record(self, key: bytes) -> PeerRecord | None:
        """Our own, or one that we keep."""
        now, own = self.clock(), self.own_record()
        if own is not None and key == record_key(own.peer):
            return own if own.expires_at > now else None
        return self.store.get(key, now)

    async def _put(self, peer: PeerId, question: KadMessage) -> KadMessage:
        if question.value is None:
            raise ProtocolViolation("a record was wanted; got none")
        if not await self.may_store(peer):
            raise Invalid(f"{peer} may not store records here")
        record = read_record(question.value, key=question.key, network=self.network, now=self.clock())
        if record.peer != peer:
            raise Invalid(f"a record is taken from its own signer only; {peer} brought one of {record.peer}")
        kept = self.store.put(record, self.clock())
        if kept is None:
            raise Invalid("there is no room for another record")
        if kept is record:
            self.note_record(record)
        return attrs.evolve(question, value=kept.raw, closer=())

    def _closer(self, asker: PeerId, key: bytes) -> tuple[KadPeer, ...]:
        """The nearest to `key` but the asker; first of all the peer that is looked for, should we know it."""
        found = [each for each in self.table.closest(key_of(key)) if each.peer != asker]
        found.sort(key=lambda each: not _is_wanted(each, key))
        return tuple(KadPeer(each.peer, each.addresses) for each in found)


def _is_wanted(found: Located, key: bytes) -> bool:
    return peer_bytes(found.peer) == key
