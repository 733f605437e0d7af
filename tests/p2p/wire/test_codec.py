"""Messages to bytes and back: golden vectors, protobuf as the judge, and everything a hostile peer may send."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsn.core.errors import ProtocolViolation
from fsn.core.ids import PeerId, ReplicaId
from fsn.core.merkle import Opening, leaf_count, open_leaves
from fsn.core.proofs import Proof
from fsn.core.reachability import DialOutcome, DialResult
from fsn.core.reconciliation import HeldReplica, PrefixSum
from fsn.core.sealing import MAX_SEALED_BYTES
from fsn.p2p.wire import storage_pb2 as pb
from fsn.p2p.wire.codec import Envelope, decode, encode, encode_parts
from fsn.p2p.wire.framing import MAX_FRAME_BYTES, FrameDecoder, encode_varint
from fsn.p2p.wire.limits import MAX_PATH
from fsn.p2p.wire.messages import (
    ChunkRetrieved,
    ChunksDeleted,
    ChunkStored,
    Contact,
    Declaration,
    Declared,
    DeleteChunks,
    DialBack,
    DialedBack,
    Earnings,
    Heartbeat,
    HeartbeatAnswer,
    HeldProof,
    LossesReported,
    Message,
    ProofRecord,
    ProveHeld,
    Reconcile,
    Reconciled,
    ReconcileLevel,
    Refusal,
    RefusalCode,
    ReportLosses,
    RetrieveChunk,
    Standing,
    StoreChunk,
)

GOLDEN = Path(__file__).parent / "golden"
ONE = ReplicaId(UUID("000102030405060708090a0b0c0d0e0f"))
TWO = ReplicaId(UUID("f0e0d0c0b0a090807060504030201000"))
ROOT = bytes(range(100, 132))

VECTORS: dict[str, Envelope] = {
    "store_chunk_request": Envelope(1, 20_000, StoreChunk(ONE, ROOT, b"sealed bytes")),
    "store_chunk_response": Envelope(1, 0, ChunkStored(ONE)),
    "retrieve_chunk_request": Envelope(300, 5_000, RetrieveChunk(ONE, offset=4096, length=8192)),
    "retrieve_chunk_request_whole": Envelope(301, 5_000, RetrieveChunk(ONE)),
    "retrieve_chunk_response": Envelope(300, 0, ChunkRetrieved(b"sealed bytes", total_bytes=262_160)),
    "retrieve_chunk_response_empty": Envelope(302, 0, ChunkRetrieved(b"", total_bytes=17)),
    "proof_challenge": Envelope(17, 2_000, ProveHeld(TWO, ONE, ROOT, difficulty=4)),
    "proof_response": Envelope(
        17, 0, HeldProof(TWO, Proof(ROOT, (Opening(b"a leaf", (ROOT, ROOT[::-1])), Opening(b"another", ()))), 12)
    ),
    "delete_chunk_request": Envelope(2**64 - 1, 2**32 - 1, DeleteChunks((ONE, TWO))),
    "delete_chunk_response": Envelope(7, 0, ChunksDeleted({TWO: "disk error"})),
    "delete_chunk_response_all_gone": Envelope(8, 0, ChunksDeleted({})),
    "delete_chunk_request_to_trash": Envelope(12, 0, DeleteChunks((ONE,), to_trash=True)),
    "reconcile_request": Envelope(13, 30_000, Reconcile(ReconcileLevel.FIRST_BYTE)),
    "reconcile_request_two_bytes": Envelope(14, 30_000, Reconcile(ReconcileLevel.TWO_BYTES, (0, 17, 255))),
    "reconcile_request_replicas": Envelope(15, 30_000, Reconcile(ReconcileLevel.REPLICAS, (1, 0xF0E0), ONE)),
    "reconcile_response": Envelope(
        14, 0, Reconciled({0: PrefixSum(3, 786_480, 2**64 - 1, 1), 0xFFFF: PrefixSum(1, 17, 0, 2**63)})
    ),
    "reconcile_response_replicas": Envelope(
        15, 0, Reconciled(replicas=(HeldReplica(ONE, ROOT[:16], 262_160), HeldReplica(TWO, ROOT[16:], 17)), more=True)
    ),
    "report_losses_request": Envelope(16, 10_000, ReportLosses({ONE: "missing", TWO: "other bytes"})),
    "report_losses_response": Envelope(16, 0, LossesReported()),
    "heartbeat_request": Envelope(
        9, 10_000, Heartbeat(41, 10_747_904, 2**40, "0.1.0", draining=True, addresses=("/ip4/192.0.2.7/tcp/4001",))
    ),
    "heartbeat_response": Envelope(
        9, 0, HeartbeatAnswer(-1_500_000, (Contact(PeerId("12D3KooWExample"), ("/dns4/c.example/tcp/4001",)),))
    ),
    "heartbeat_response_state": Envelope(9, 0, HeartbeatAnswer(state="draining")),
    "heartbeat_response_record": Envelope(
        9,
        0,
        HeartbeatAnswer(
            2_250_000,
            state="online",
            proofs=ProofRecord(61, 2, 1, 61, 100, 172_800, 985_000, is_suspended=True, reason="missed 2 of 6"),
            earnings=Earnings(31_000, 1_500_000, 750_000, -1),
        ),
    ),
    "heartbeat_response_empty_record": Envelope(
        9, 0, HeartbeatAnswer(proofs=ProofRecord(score_millionths=0), earnings=Earnings())
    ),
    "heartbeat_response_empty": Envelope(10, 0, HeartbeatAnswer()),
    "declare_request": Envelope(12, 10_000, Declaration(Standing.MAINTENANCE, 14_400, "a new disk")),
    "declare_request_active": Envelope(13, 10_000, Declaration(Standing.ACTIVE)),
    "declare_response": Envelope(
        12, 0, Declared("draining", 90, "moving; 3 nodes are wanted, 2 are there", 172_710, 4_000_000, 2**40, 3)
    ),
    "dial_back_request": Envelope(12, 30_000, DialBack(("/ip4/0.0.0.0/tcp/4001", "/dns4/n.example/tcp/4001"))),
    "dial_back_response": Envelope(
        12,
        0,
        DialedBack(
            "192.0.2.7", (DialResult("/ip4/192.0.2.7/tcp/4001", DialOutcome.NO_ANSWER, "no answer within 5 s"),)
        ),
    ),
    "refusal": Envelope(11, 0, Refusal(RefusalCode.BUSY, "32 requests are open already", retry_after_ms=250)),
}


def payload(frame: bytes) -> bytes:
    (only,) = FrameDecoder().feed(frame)
    return bytes(only)


def encoded(envelope: Envelope) -> bytes:
    return encode(envelope.request_id, envelope.message, envelope.deadline_ms)


@pytest.mark.parametrize(("name", "envelope"), VECTORS.items(), ids=VECTORS)
def test_golden_vectors(name: str, envelope: Envelope) -> None:
    """Each message has the committed bytes, there and back. A change here is a change of the protocol."""
    golden = bytes.fromhex((GOLDEN / f"{name}.hex").read_text())
    assert encoded(envelope) == golden
    assert decode(payload(golden)) == envelope


def test_every_golden_file_is_tested() -> None:
    """No vector lies there unused."""
    assert {path.stem for path in GOLDEN.glob("*.hex")} == set(VECTORS)


@pytest.mark.parametrize("envelope", VECTORS.values(), ids=VECTORS)
def test_protobuf_writes_the_same_bytes(envelope: Envelope) -> None:
    """What we put together by hand is what protobuf makes of the same fields."""
    content = payload(encoded(envelope))
    assert pb.Envelope.FromString(content).SerializeToString(deterministic=True) == content


def test_every_kind_of_message_has_a_vector() -> None:
    """A new message comes with its golden bytes."""
    assert {type(envelope.message) for envelope in VECTORS.values()} == set(Message.__args__)


replicas = st.binary(min_size=16, max_size=16).map(lambda raw: ReplicaId(UUID(bytes=raw)))
sizes = st.integers(0, 2**63 - 1)
amounts = st.integers(-(2**63), 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32)
openings = st.builds(Opening, st.binary(min_size=1, max_size=50), st.lists(hashes, max_size=7).map(tuple))
records = st.builds(
    ProofRecord, sizes, sizes, sizes, sizes, sizes, sizes, st.integers(0, 10**6), st.booleans(), st.text(max_size=50)
)
addresses = st.lists(st.text(max_size=60), max_size=32).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(StoreChunk, replicas, st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=700)),
    st.builds(ChunkStored, replicas),
    st.builds(RetrieveChunk, replicas, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    st.builds(ChunkRetrieved, st.binary(max_size=700), st.integers(700, MAX_SEALED_BYTES)),
    st.builds(ProveHeld, st.uuids(), replicas, hashes, st.integers(1, 64)),
    st.builds(
        HeldProof,
        st.uuids(),
        st.builds(Proof, hashes, st.lists(openings, min_size=1, max_size=64).map(tuple)),
        sizes,
    ),
    st.builds(DeleteChunks, st.lists(replicas, max_size=20).map(tuple), st.booleans()),
    st.just(Reconcile(ReconcileLevel.FIRST_BYTE)),
    st.builds(
        Reconcile,
        st.just(ReconcileLevel.TWO_BYTES),
        st.lists(st.integers(0, 255), min_size=1, max_size=64).map(tuple),
    ),
    st.builds(
        Reconcile,
        st.just(ReconcileLevel.REPLICAS),
        st.lists(st.integers(0, 65535), min_size=1, max_size=20).map(tuple),
        st.none() | replicas,
    ),
    st.builds(
        Reconciled,
        st.dictionaries(
            st.integers(0, 65535),
            st.builds(PrefixSum, sizes, sizes, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
            max_size=20,
        ),
        st.dictionaries(replicas, st.binary(min_size=16, max_size=16), max_size=20).map(
            lambda found: tuple(HeldReplica(key, found[key], 1 + key.int % 2**20) for key in sorted(found))
        ),
        st.booleans(),
    ),
    st.builds(ReportLosses, st.dictionaries(replicas, st.text(max_size=15), min_size=1, max_size=20)),
    st.just(LossesReported()),
    st.builds(ChunksDeleted, st.dictionaries(replicas, st.text(min_size=1, max_size=15), max_size=20)),
    st.builds(Heartbeat, sizes, sizes, sizes, st.text(max_size=16), st.booleans(), addresses),
    st.builds(
        HeartbeatAnswer,
        st.integers(-(2**63), 2**63 - 1),
        st.lists(st.builds(Contact, st.text("abc123", min_size=1, max_size=60), addresses), max_size=5).map(tuple),
        st.from_regex("[a-z]{0,32}", fullmatch=True),
        st.none() | records,
        st.none() | st.builds(Earnings, amounts, amounts, amounts, amounts),
    ),
    st.builds(DialBack, st.lists(st.text(max_size=60), max_size=8).map(tuple)),
    st.builds(
        DialedBack,
        st.none() | st.just("2001:db8::1"),
        st.lists(
            st.builds(
                DialResult,
                st.text(max_size=60),
                st.sampled_from(DialOutcome) | st.from_regex("[a-z_]{1,32}", fullmatch=True),
                st.text(max_size=50),
            ),
            max_size=8,
        ).map(tuple),
    ),
    st.builds(
        Declaration,
        st.sampled_from(Standing) | st.from_regex("[A-Z_]{1,32}", fullmatch=True),
        sizes,
        st.text("abc \u00e4", max_size=100),
    ),
    st.builds(
        Declared,
        st.from_regex("[a-z_]{1,32}", fullmatch=True),
        sizes,
        st.text(max_size=125),
        sizes,
        sizes,
        sizes,
        sizes,
    ),
    st.builds(
        Refusal,
        st.sampled_from(RefusalCode) | st.from_regex("[A-Z_]{1,32}", fullmatch=True),
        st.text(max_size=256),
        st.integers(0, 2**32 - 1),
    ),
)


@pytest.mark.fuzz
@given(st.integers(0, 2**64 - 1), messages, st.integers(0, 2**32 - 1))
def test_a_message_comes_back(request_id: int, message: Message, deadline_ms: int) -> None:
    """Decoding an encoded message gives the same message, whatever it holds; protobuf agrees about its bytes."""
    content = payload(encode(request_id, message, deadline_ms))
    assert decode(content) == Envelope(request_id, deadline_ms, message)
    assert pb.Envelope.FromString(content).SerializeToString(deterministic=True) == content


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_a_whole_chunk_passes_in_any_buffer(buffer: Callable[[bytes], Any]) -> None:
    """The largest chunk goes out from a view and comes in from whatever the framing hands over."""
    data = bytes(range(256)) * 1024 + bytes(16)
    content = payload(encode(5, StoreChunk(ONE, ROOT, memoryview(data)), 20_000))
    decoded = decode(buffer(content))
    assert decoded.message == StoreChunk(ONE, ROOT, data)


@pytest.mark.parametrize("message", [StoreChunk(ONE, ROOT, bytes(5000)), ChunkRetrieved(bytes(5000), 5000)], ids=repr)
def test_sealed_bytes_are_not_copied(message: StoreChunk | ChunkRetrieved) -> None:
    """They go out as the object that was given, and come in as a view of the frame."""
    parts = encode_parts(5, message)
    assert parts[1] is message.data
    frame = payload(b"".join(parts))
    decoded = decode(frame).message
    assert isinstance(decoded, StoreChunk | ChunkRetrieved)
    assert isinstance(decoded.data, memoryview)
    assert decoded.data.obj is frame
    assert decoded == message


@given(st.permutations(range(5)), st.permutations(range(6)), st.booleans())
def test_fields_come_in_any_order(outer: list[int], inner: list[int], is_doubled: bool) -> None:
    """Large chunks too, with unknown fields anywhere; of a field that comes twice the last one counts, as protobuf has it."""
    data = bytes(range(256)) * 32
    unknown = b"\xa2\x06\x02hi\xa9\x06" + bytes(8) + b"\xad\x06" + bytes(4)
    request = pb.StoreChunkRequest
    body_fields = [
        request(chunk_id=ONE.hex).SerializeToString(),
        request(hash=ROOT.hex()).SerializeToString(),
        request(size_bytes=len(data)).SerializeToString(),
        request(data=data).SerializeToString(),
        request(data=b"first").SerializeToString() if is_doubled and inner.index(4) < inner.index(3) else b"",
        unknown,
    ]
    body = b"".join(body_fields[place] for place in inner)
    fields = [
        pb.Envelope(request_id=7).SerializeToString(),
        pb.Envelope(deadline_ms=9).SerializeToString(),
        encode_varint(pb.Envelope.STORE_CHUNK_REQUEST_FIELD_NUMBER << 3 | 2) + encode_varint(len(body)) + body,
        unknown,
        pb.Envelope(heartbeat_response=pb.HeartbeatResponse()).SerializeToString()
        if is_doubled and outer.index(4) < outer.index(2)
        else b"",
    ]
    assert decode(b"".join(fields[place] for place in outer)) == Envelope(7, 9, StoreChunk(ONE, ROOT, data))


@pytest.mark.parametrize("envelope", VECTORS.values(), ids=VECTORS)
def test_a_cut_frame_is_a_violation_or_another_message(envelope: Envelope) -> None:
    """Cut at every position, a frame never raises anything but ProtocolViolation."""
    content = payload(encoded(envelope))
    for cut in range(len(content)):
        try:
            decode(content[:cut])
        except ProtocolViolation:
            continue


@pytest.mark.fuzz
@given(messages, st.data())
def test_a_damaged_frame_is_a_violation_or_another_message(message: Message, data: st.DataObject) -> None:
    """Any bytes changed, taken out or put in anywhere, decoding gives a well-formed message or ProtocolViolation."""
    content = bytearray(payload(encode(1, message)))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decoded = decode(content)
    except ProtocolViolation:
        return
    encoded(decoded)  # what was let in could be sent on


@pytest.mark.fuzz
@given(messages, messages, st.data())
def test_parts_of_two_frames_are_a_violation_or_a_message(one: Message, other: Message, data: st.DataObject) -> None:
    """The beginning of one frame and the end of another give a well-formed message or ProtocolViolation."""
    first, second = payload(encode(1, one)), payload(encode(2, other))
    content = first[: data.draw(st.integers(0, len(first)))] + second[data.draw(st.integers(0, len(second))) :]
    try:
        decoded = decode(content)
    except ProtocolViolation:
        return
    encoded(decoded)


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_noise_is_a_violation(noise: bytes) -> None:
    """Random bytes never raise anything but ProtocolViolation."""
    try:
        decode(noise)
    except ProtocolViolation:
        return


def store(**changed: Any) -> pb.Envelope:
    fields: dict[str, Any] = {"chunk_id": ONE.hex, "hash": ROOT.hex(), "size_bytes": 3, "data": b"abc"}
    return pb.Envelope(request_id=1, store_chunk_request=pb.StoreChunkRequest(**(fields | changed)))


def deletion_results(*results: tuple[str, str]) -> pb.Envelope:
    listed = [pb.DeleteChunkResult(chunk_id=each, error=error) for each, error in results]
    return pb.Envelope(delete_chunk_response=pb.DeleteChunkResponse(results=listed))


def beat(**changed: Any) -> pb.Envelope:
    return pb.Envelope(heartbeat_request=pb.HeartbeatRequest(**changed))


def challenge(**changed: Any) -> pb.Envelope:
    fields: dict[str, Any] = {"challenge_id": TWO.hex, "chunk_id": ONE.hex, "seed": ROOT, "difficulty": 4}
    return pb.Envelope(proof_challenge=pb.ProofChallenge(**(fields | changed)))


def proof(count: int = 1, leaf: bytes = b"leaf", siblings: Sequence[bytes] = (), **changed: Any) -> pb.Envelope:
    fields: dict[str, Any] = {"challenge_id": TWO.hex, "proof_hash": ROOT.hex()}
    fields["openings"] = [pb.Opening(leaf=leaf, siblings=siblings)] * count
    return pb.Envelope(proof_response=pb.ProofResponse(**(fields | changed)))


def record(**changed: Any) -> pb.Envelope:
    return pb.Envelope(heartbeat_response=pb.HeartbeatResponse(proofs=pb.ProofRecord(**changed)))


def known(count: int = 1, **changed: Any) -> pb.Envelope:
    contacts = [pb.Coordinator(**({"peer_id": "p"} | changed))] * count
    return pb.Envelope(heartbeat_response=pb.HeartbeatResponse(coordinators=contacts))


def declare(**changed: Any) -> pb.Envelope:
    return pb.Envelope(declare_request=pb.DeclareRequest(**({"standing": "ACTIVE"} | changed)))


def declared(**changed: Any) -> pb.Envelope:
    return pb.Envelope(declare_response=pb.DeclareResponse(**({"state": "online"} | changed)))


def asked(**changed: Any) -> pb.Envelope:
    return pb.Envelope(reconcile_request=pb.ReconcileRequest(**changed))


def held(*replicas: dict[str, Any], sums: Sequence[dict[str, Any]] = ()) -> pb.Envelope:
    plain: dict[str, Any] = {"id": ONE.bytes, "digest": ROOT[:16], "size_bytes": 1}
    rows = [pb.HeldReplica(**(plain | each)) for each in replicas]
    return pb.Envelope(
        reconcile_response=pb.ReconcileResponse(sums=[pb.PrefixSum(**each) for each in sums], replicas=rows)
    )


def lost(*ids: str, reason: str = "") -> pb.Envelope:
    rows = [pb.LostReplica(chunk_id=each, reason=reason) for each in ids]
    return pb.Envelope(report_losses_request=pb.ReportLossesRequest(losses=rows))


BREACHES: dict[str, pb.Envelope] = {
    "a level that is none": asked(level=3, prefixes=[1]),
    "prefixes at the first level": asked(prefixes=[0]),
    "no prefix at the second level": asked(level=1),
    "too many first bytes": asked(level=1, prefixes=[0] * 65),
    "a first byte that is none": asked(level=1, prefixes=[256]),
    "after at the second level": asked(level=1, prefixes=[1], after=ONE.hex),
    "too many prefixes": asked(level=2, prefixes=[0] * 4097),
    "a prefix that is none": asked(level=2, prefixes=[65536]),
    "after that is no id": asked(level=2, prefixes=[1], after="ab"),
    "a prefix twice": held(sums=[{"prefix": 1}, {"prefix": 1}]),
    "a sum's prefix that is none": held(sums=[{"prefix": 65536}]),
    "a count beyond": held(sums=[{"count": 2**63}]),
    "a size beyond": held(sums=[{"size_bytes": 2**63}]),
    "a short binary id": held({"id": b"short"}),
    "a short digest": held({"digest": b"short"}),
    "a replica without bytes": held({"size_bytes": 0}),
    "a replica above a store's": held({"size_bytes": 2**20 + 1}),
    "a replica twice": held({}, {}),
    "replicas out of order": held({"id": TWO.bytes}, {}),
    "too many replicas": held(*({"id": number.to_bytes(16, "big")} for number in range(5001))),
    "no loss": lost(),
    "a loss twice": lost(ONE.hex, ONE.hex),
    "a loss that is no id": lost("ab"),
    "a long reason": lost(ONE.hex, reason="x" * 61),
    "too many losses": lost(*(f"{number:032x}" for number in range(1001))),
    "no body": pb.Envelope(request_id=1),
    "a challenge without an id": challenge(challenge_id=""),
    "a challenge with dashes": challenge(challenge_id=str(UUID(int=1))),
    "a challenge for no replica": challenge(chunk_id="ab"),
    "a short seed": challenge(seed=ROOT[:31]),
    "a long seed": challenge(seed=ROOT + b"x"),
    "no difficulty": challenge(difficulty=0),
    "negative difficulty": challenge(difficulty=-1),
    "difficulty beyond": challenge(difficulty=65),
    "a proof for no challenge": proof(challenge_id=""),
    "a short proof hash": proof(proof_hash=ROOT.hex()[:62]),
    "a proof hash in capitals": proof(proof_hash=ROOT.hex().upper()),
    "negative duration": proof(duration_ms=-1),
    "no opening": proof(0),
    "too many openings": proof(65),
    "two hundred thousand openings": proof(200_000, b"x"),
    "an empty leaf": proof(leaf=b""),
    "a leaf too long": proof(leaf=bytes(4097)),
    "a short sibling": proof(siblings=[ROOT[:31]]),
    "a long sibling": proof(siblings=[ROOT + b"x"]),
    "a path too long": proof(siblings=[ROOT] * 8),
    "negative proofs": record(passed=-1),
    "negative vetting": record(vetting_seconds_left=-1),
    "a score above one": record(score_millionths=1_000_001),
    "a record's long reason": record(reason="r" * 201),
    "short id": store(chunk_id="ab"),
    "upper case id": store(chunk_id=ONE.hex.upper()),
    "id with dashes": store(chunk_id=str(ONE)),
    "id with a newline": store(chunk_id=ONE.hex + "\n"),
    "no id": store(chunk_id=""),
    "digits of another script": store(chunk_id="\u0661" * 32),
    "short hash": store(hash="00" * 31),
    "long hash": store(hash="00" * 33),
    "no hash": store(hash=""),
    "size too small": store(size_bytes=2),
    "size too large": store(size_bytes=4),
    "negative size": store(size_bytes=-3),
    "no data": store(size_bytes=0, data=b""),
    "data above a chunk": store(size_bytes=MAX_SEALED_BYTES + 1, data=bytes(MAX_SEALED_BYTES + 1)),
    "negative index": store(chunk_index=-1),
    "long file id": store(file_id="f" * 65),
    "negative offset": pb.Envelope(retrieve_chunk_request=pb.RetrieveChunkRequest(chunk_id=ONE.hex, offset=-1)),
    "negative length": pb.Envelope(retrieve_chunk_request=pb.RetrieveChunkRequest(chunk_id=ONE.hex, length=-1)),
    "more data than there is": pb.Envelope(
        retrieve_chunk_response=pb.RetrieveChunkResponse(total_bytes=2, data=b"abc")
    ),
    "replica of nothing": pb.Envelope(retrieve_chunk_response=pb.RetrieveChunkResponse(total_bytes=0)),
    "replica above a chunk": pb.Envelope(
        retrieve_chunk_response=pb.RetrieveChunkResponse(total_bytes=MAX_SEALED_BYTES + 1)
    ),
    "too many ids": pb.Envelope(delete_chunk_request=pb.DeleteChunkRequest(chunk_ids=[ONE.hex] * 10_001)),
    "one bad id of many": pb.Envelope(delete_chunk_request=pb.DeleteChunkRequest(chunk_ids=[ONE.hex, "", TWO.hex])),
    "too many results": deletion_results(*((UUID(int=number).hex, "") for number in range(10_001))),
    "two results for one id": deletion_results((ONE.hex, "a"), (ONE.hex, "")),
    "long reason": deletion_results((ONE.hex, "\u00e4" * 31)),
    "negative count": beat(chunk_count=-1),
    "negative used": beat(used_bytes=-1),
    "negative free": beat(free_bytes=-1),
    "long version": beat(version="v" * 65),
    "many addresses": beat(addresses=["a"] * 33),
    "long address": beat(addresses=["a" * 257]),
    "many coordinators": known(65),
    "half a million coordinators": known(500_000),
    "coordinator without a name": known(peer_id=""),
    "coordinator with a long name": known(peer_id="p" * 129),
    "coordinator with many addresses": known(addresses=["a"] * 33),
    "no standing": declare(standing=""),
    "lower case standing": declare(standing="active"),
    "negative rest": declare(remaining_seconds=-1),
    "long reason of an operator": declare(reason="r" * 201),
    "a reason with a newline": declare(reason="a\nb"),
    "no state": declared(state=""),
    "upper case state": declared(state="Online"),
    "negative age": declared(since_seconds=-1),
    "negative replicas": declared(replicas_left=-1),
    "negative bytes": declared(bytes_left=-1),
    "long reason of a coordinator": declared(reason="r" * 501),
    "a state in capitals": pb.Envelope(heartbeat_response=pb.HeartbeatResponse(state="ONLINE")),
    "a long state": pb.Envelope(heartbeat_response=pb.HeartbeatResponse(state="a" * 33)),
    "refusal without a code": pb.Envelope(refusal=pb.Refusal(message="no")),
    "refusal with a strange code": pb.Envelope(refusal=pb.Refusal(code="full\n")),
    "refusal with a long code": pb.Envelope(refusal=pb.Refusal(code="A" * 33)),
    "refusal with a long message": pb.Envelope(refusal=pb.Refusal(code="FULL", message="m" * 1025)),
}


@pytest.mark.parametrize("envelope", BREACHES.values(), ids=BREACHES)
def test_every_rule_is_enforced(envelope: pb.Envelope) -> None:
    """What protobuf allows and the protocol does not is a violation."""
    with pytest.raises(ProtocolViolation):
        decode(envelope.SerializeToString())


def test_the_breaches_start_from_a_good_message() -> None:
    """Without its one flaw, each of the messages above would pass."""
    good_proof = proof(64, bytes(4096), [ROOT] * 7)
    for good in (
        challenge(),
        challenge(difficulty=64),
        good_proof,
        record(),
        store(),
        deletion_results((ONE.hex, "a"), (TWO.hex, "")),
        beat(),
        known(),
        declare(),
        declared(),
    ):
        decode(good.SerializeToString())


def test_text_that_is_no_utf_8_is_a_violation() -> None:
    """A string field with other bytes is malformed."""
    with pytest.raises(ProtocolViolation, match="no Envelope"):
        decode(bytes.fromhex("1a04" + "0a02" + "ff41"))


@pytest.mark.parametrize("name", VECTORS)
def test_unknown_fields_are_ignored(name: str) -> None:
    """A later peer of the same protocol version may add fields."""
    unknown = bytes.fromhex("f20703616263")  # field 126, length-delimited, "abc"
    assert decode(payload(encoded(VECTORS[name])) + unknown) == VECTORS[name]


def test_a_result_without_an_error_is_a_success() -> None:
    """A peer may list the ids that are gone, too."""
    decoded = decode(deletion_results((ONE.hex, ""), (TWO.hex, "busy")).SerializeToString())
    assert decoded.message == ChunksDeleted({TWO: "busy"})


def test_known_refusals_are_known_and_others_borne() -> None:
    """A code of our list comes as that code, a later one as its text."""
    known_code = decode(payload(encode(1, Refusal(RefusalCode.FULL, "")))).message
    later_code = decode(payload(encode(1, Refusal("TOO_HOT", "")))).message
    assert isinstance(known_code, Refusal)
    assert known_code.code is RefusalCode.FULL
    assert later_code == Refusal("TOO_HOT", "")


def test_long_reasons_are_cut_not_refused() -> None:
    """Texts for people are shortened to what the wire allows, between characters, whatever they hold."""
    refusal = decode(payload(encode(1, Refusal(RefusalCode.INTERNAL, "\u00e4" * 1000)))).message
    answer = decode(payload(encode(1, HeartbeatAnswer(proofs=ProofRecord(reason="\u00e4" * 1000))))).message
    deleted = decode(payload(encode(1, ChunksDeleted({ONE: "x\udcff" + "y" * 100})))).message
    assert refusal == Refusal(RefusalCode.INTERNAL, "\u00e4" * 512)
    assert answer == HeartbeatAnswer(proofs=ProofRecord(reason="\u00e4" * 100))
    assert deleted == ChunksDeleted({ONE: "x?" + "y" * 58})


def test_the_largest_proof_fits_a_frame() -> None:
    """64 leaves of the largest replica, with their paths, are one frame."""
    opened = Opening(bytes(4096), (ROOT,) * 7)
    assert len(encode(2**64 - 1, HeldProof(TWO, Proof(ROOT, (opened,) * 64), 2**63 - 1))) <= MAX_FRAME_BYTES


def test_the_path_of_the_largest_replica_is_the_longest() -> None:
    """No honest proof is refused: what the limits allow is what 262,160 bytes need."""
    data = bytes(MAX_SEALED_BYTES)
    assert max(len(each.siblings) for each in open_leaves(data, range(leaf_count(len(data))))) == MAX_PATH


def test_the_largest_deletion_fits_a_frame() -> None:
    """Ten thousand ids, and ten thousand failures with full reasons, are one frame each."""
    many = [ReplicaId(UUID(int=number)) for number in range(10_000)]
    for message in (DeleteChunks(tuple(many)), ChunksDeleted(dict.fromkeys(many, "r" * 60))):
        assert len(encode(2**64 - 1, message)) <= MAX_FRAME_BYTES


@pytest.mark.parametrize(
    "message",
    [
        StoreChunk(ONE, ROOT, b""),
        StoreChunk(ONE, ROOT[:31], b"abc"),
        StoreChunk(ONE, ROOT, bytes(MAX_SEALED_BYTES + 1)),
        RetrieveChunk(ONE, offset=-1),
        ProveHeld(TWO, ONE, ROOT, 65),
        HeldProof(TWO, Proof(ROOT, ()), 0),
        DeleteChunks((ONE,) * 10_001),
        Heartbeat(-1, 0, 0, "0.1.0"),
        HeartbeatAnswer(coordinators=(Contact(PeerId("p"), ("a" * 257,)),)),
        Declaration("no standing"),
        Declared("No State"),
        Refusal("no code", ""),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_peer_would_refuse_is_not_sent(message: Message) -> None:
    """A malformed message is the sender's mistake, told with what was wanted and found."""
    with pytest.raises(ValueError, match=r"cannot be sent: .*got"):
        encode(1, message)


@pytest.mark.parametrize(("request_id", "deadline_ms"), [(-1, 0), (2**64, 0), (1, -1), (1, 2**32)])
def test_numbers_outside_the_wire_s_range_are_not_sent(request_id: int, deadline_ms: int) -> None:
    """A request id has 64 bits, a deadline 32."""
    with pytest.raises(ValueError):
        encode(request_id, ChunkStored(ONE), deadline_ms)


def test_an_envelope_is_a_value() -> None:
    """Envelopes compare by content."""
    assert attrs.evolve(VECTORS["refusal"]) == VECTORS["refusal"]
