"""Files in and out through the services: what is stored where, what survives, what is refused."""

import secrets
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from fsn.coord.catalog import StoredFile
from fsn.coord.database.pool import Pool
from fsn.coord.download import FIRST_CHUNKS
from fsn.core.chunking import CHUNK_BYTES
from fsn.core.errors import Conflict, Invalid, NotFound, TooFewCopies, TooFewNodes, TooLarge
from fsn.core.ids import PeerId, UserId
from fsn.node.handlers import ChunkHandlers
from fsn.p2p.server import serve_requests
from fsn.p2p.wire.messages import Response, RetrieveChunk
from tests.coord.network import CONFIG, Member, Network, open_network, wait_until


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """`data` as a network brings it: in pieces that know nothing of chunks."""
    for start in range(0, len(data), size):
        await trio.lowlevel.checkpoint()
        yield data[start : start + size]


async def put(
    network: Network, user: UserId, data: bytes, *, name: str = "f", replicas: int | None = None
) -> StoredFile:
    """Upload in one stream."""
    return await network.services.uploads.store_stream(user, name, len(data), replicas, pieces(data))


async def get(network: Network, file: StoredFile, begin: int = 0, end: int | None = None) -> bytes:
    """Download a range."""
    size = file.size_bytes or 0
    if size == 0:
        return b""
    async with network.services.downloads.open_range(file, begin, size if end is None else end) as body:
        return b"".join([piece async for piece in body])


async def held(network: Network) -> int:
    """Replicas on all nodes together."""
    return sum([len(await node.replicas()) for node in network.nodes])


async def holders(network: Network) -> list[Member]:
    """The nodes that hold something."""
    return [node for node in network.nodes if await node.replicas()]


async def wait_held(network: Network, wanted: int) -> None:
    """Until the nodes hold `wanted` replicas; the test's deadline bounds it."""
    await wait_until(lambda: sum(node.store.totals().count for node in network.nodes) == wanted)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 17])
async def test_what_goes_in_comes_out(network: Network, size: int) -> None:
    """A file of any size comes back bit for bit, with three sealed replicas of each chunk on nodes of their own."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(size)
    file = await put(network, user, data)
    assert file.status == "ready"
    assert file.size_bytes == size
    assert await get(network, file) == data
    chunks = -(-size // CHUNK_BYTES)
    assert await held(network) == 3 * chunks
    for node in network.nodes:
        for replica in await node.replicas():
            sealed, _ = await node.store.retrieve(replica)
            assert len(data) < 32 or data[:32] not in sealed


@pytest.mark.parametrize("size", [0, 10, 5 * CHUNK_BYTES])
async def test_an_upload_is_answered_with_what_the_catalogue_has(network: Network, size: int) -> None:
    """Whether recorded in one piece or in steps, a file looks the same in the answer to its upload and ever after."""
    user = (await network.user()).user.id
    file = await put(network, user, bytes(size))
    assert await network.services.files.find(user, file.id) == file


async def test_no_two_replicas_of_a_chunk_lie_on_one_node(network: Network, pool: Pool) -> None:
    """The catalogue counts three different nodes for each chunk."""
    user = (await network.user()).user.id
    await put(network, user, bytes(10 * CHUNK_BYTES))
    rows = await pool.fetch_all("select count(*), count(distinct node_id) from replicas group by file_id, chunk_index")
    assert set(rows) == {(3, 3)}
    assert len(rows) == 10


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 1), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (5, 3 * CHUNK_BYTES), (3 * CHUNK_BYTES, None)]
)
async def test_a_range_is_cut_to_the_byte(network: Network, begin: int, end: int | None) -> None:
    """Any range gives exactly its bytes."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(3 * CHUNK_BYTES + 1000)
    file = await put(network, user, data)
    assert await get(network, file, begin, end) == data[begin:end]


async def test_a_download_that_is_left_early_leaves_nothing_running(network: Network) -> None:
    """Leaving the block in the middle stops the read-ahead."""
    user = (await network.user()).user.id
    file = await put(network, user, bytes(40 * CHUNK_BYTES))
    async with network.services.downloads.open_range(file, 0, file.size_bytes or 0) as body:
        async for _ in body:
            break
    assert all(member.reads == 0 for member in network.services.membership.online())


async def test_a_slow_reader_gets_a_few_chunks_ahead_a_fast_one_more(network: Network) -> None:
    """One that finds every chunk waiting holds four and the one in hand; one that has to wait is read ahead for, within the window."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(40 * CHUNK_BYTES)
    file = await put(network, user, data)
    requests = [0]
    for node in network.nodes:
        _count_retrieves(network, node, requests)
    async with network.services.downloads.open_range(file, 0, len(data)) as body:
        read = 0
        async for _ in body:
            read += 1
            await trio.testing.wait_all_tasks_blocked(0.05)  # whatever is fetched ahead has come
            assert requests[0] <= read + FIRST_CHUNKS
            if read == 10:
                break
    requests[0] = 0
    assert await get(network, file) == data
    assert requests[0] >= 40


def _count_retrieves(network: Network, node: Member, requests: list[int]) -> None:
    handlers = ChunkHandlers(node.store, is_draining=lambda: False)

    async def counting(peer: PeerId, message: RetrieveChunk) -> Response:
        requests[0] += 1
        return await handlers.retrieve_chunk(peer, message)

    serve_requests(network.memory.transport(node.identity.peer), {RetrieveChunk: counting}, may_ask=lambda _: True)


async def test_a_stream_of_unknown_length_is_stored(network: Network) -> None:
    """Without a declared size the file gets the size that came."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(CHUNK_BYTES + 5)
    file = await network.services.uploads.store_stream(user, "f", None, None, pieces(data))
    assert file.size_bytes == len(data)
    assert await get(network, file) == data


async def test_a_stream_of_another_length_than_declared_leaves_nothing(network: Network) -> None:
    """Too few bytes are an error, and what was stored of them is deleted from the nodes."""
    user = (await network.user()).user.id
    with pytest.raises(Invalid, match="announced"):
        await network.services.uploads.store_stream(user, "f", 10 * CHUNK_BYTES, None, pieces(bytes(CHUNK_BYTES)))
    await wait_held(network, 0)
    assert await network.services.files.page(user, None, 10) == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(network: Network) -> None:
    """A cancelled upload is dropped: no file, no replicas."""
    user = (await network.user()).user.id
    started = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(8 * CHUNK_BYTES)
        await wait_held(network, 21)  # all but the last, which waits for what comes after it
        started.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.services.uploads.store_stream, user, "f", None, None, body())
        await started.wait()
        nursery.cancel_scope.cancel()
    await wait_held(network, 0)
    assert await network.services.files.page(user, None, 10) == []


async def test_a_node_killed_during_an_upload_is_replaced(network: Network, pool: Pool) -> None:
    """The upload succeeds, every chunk counts three replicas, and none of them was counted on word only."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(20 * CHUNK_BYTES)

    async def body() -> AsyncIterator[bytes]:
        for number, start in enumerate(range(0, len(data), CHUNK_BYTES)):
            if number == 8:
                await wait_until(lambda: any(node.store.totals().count for node in network.nodes))
                (await holders(network))[0].kill()
            yield data[start : start + CHUNK_BYTES]

    file = await network.services.uploads.store_stream(user, "f", len(data), None, body())
    assert await get(network, file) == data
    rows = await pool.fetch_all("select id, node_id from replicas")
    assert len(rows) == 60
    lying = {node.node: set(await node.replicas()) for node in network.nodes}
    assert all(replica in lying[node] for replica, node in rows)


async def test_a_file_is_read_with_one_node_of_three_left(network: Network) -> None:
    """Two of the three nodes of a file may die."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(4 * CHUNK_BYTES)
    file = await put(network, user, data)
    for node in (await holders(network))[:2]:
        node.kill()
    assert await get(network, file) == data


async def test_a_corrupt_replica_is_passed_over(network: Network) -> None:
    """Damaged, truncated and vanished replicas cost a try each; the user gets right bytes."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(CHUNK_BYTES)
    file = await put(network, user, data)
    first, second, third = await holders(network)
    _damage(first, lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:])
    _damage(second, lambda sealed: sealed[:-1])
    assert await get(network, file) == data
    _damage(third, lambda sealed: sealed[:100])
    with pytest.raises(TooFewCopies):
        await get(network, file)


async def test_too_few_nodes_are_told_in_numbers(pool: Pool) -> None:
    """With two nodes, three replicas cannot be stored; the error says so, and nothing is kept."""
    async with open_network(pool, CONFIG, nodes=2) as network:
        user = (await network.user()).user.id
        with pytest.raises(TooFewNodes) as caught:
            await put(network, user, b"x")
        assert caught.value.facts == {"wanted": 3, "found": 2}
        file = await put(network, user, b"x", replicas=2)
        assert await get(network, file) == b"x"
        assert [f.id for f in await network.services.files.page(user, None, 10)] == [file.id]


async def test_a_full_node_is_passed_over(network: Network) -> None:
    """A node without room gets nothing; the others take the file."""
    full = await network.add_node(capacity_bytes=1000)
    user = (await network.user()).user.id
    await put(network, user, bytes(5 * CHUNK_BYTES))
    assert await full.replicas() == []


async def test_steps_in_any_order_and_again(network: Network) -> None:
    """Chunks may come in any order and twice; the file is what its chunks are."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(2 * CHUNK_BYTES + 10)
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "steps", len(data), None)
    for index in (2, 0, 2, 1, 0):
        await sessions.put_chunk(user, upload.id, index, data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    assert (await sessions.progress(user, upload.id)).received == [(0, 2)]
    file = await sessions.complete(user, upload.id)
    assert (await sessions.complete(user, upload.id)).id == file.id
    assert await get(network, file) == data
    assert await held(network) == 9


async def test_the_same_chunk_sent_twice_at_once_is_stored_once(network: Network, pool: Pool) -> None:
    """Two clients race with one chunk: both succeed, three replicas stay, the loser's go."""
    user = (await network.user()).user.id
    data = secrets.token_bytes(1000)
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "race", len(data), None)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(sessions.put_chunk, user, upload.id, 0, data)
    assert await pool.fetch_one("select count(*) from replicas") == (3,)
    await wait_held(network, 3)
    file = await sessions.complete(user, upload.id)
    assert await get(network, file) == data


async def test_another_chunk_under_a_known_index_is_a_conflict(network: Network) -> None:
    """What is in is never replaced."""
    user = (await network.user()).user.id
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "f", 4, None)
    await sessions.put_chunk(user, upload.id, 0, b"abcd")
    with pytest.raises(Conflict) as caught:
        await sessions.put_chunk(user, upload.id, 0, b"abce")
    assert caught.value.code == "chunk_differs"


@pytest.mark.parametrize(
    ("index", "data", "words"),
    [(0, b"abc", "must be 4 bytes"), (0, b"abcde", "got 5"), (1, b"abcd", "0..0"), (-1, b"abcd", "0..0")],
)
async def test_a_chunk_that_does_not_fit_is_told_what_was_wanted(
    network: Network, index: int, data: bytes, words: str
) -> None:
    """Wrong sizes and indexes are refused with both numbers."""
    user = (await network.user()).user.id
    upload = await network.services.sessions.initiate(user, "f", 4, None)
    with pytest.raises(Invalid, match=words):
        await network.services.sessions.put_chunk(user, upload.id, index, data)


async def test_completing_too_early_names_the_missing_chunks(network: Network) -> None:
    """The conflict lists the indexes, and the upload goes on."""
    user = (await network.user()).user.id
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "f", 2 * CHUNK_BYTES + 1, None)
    await sessions.put_chunk(user, upload.id, 1, bytes(CHUNK_BYTES))
    with pytest.raises(Conflict) as caught:
        await sessions.complete(user, upload.id)
    assert caught.value.code == "chunks_missing"
    assert caught.value.facts["missing"] == [0, 2]
    await sessions.put_chunk(user, upload.id, 0, bytes(CHUNK_BYTES))


async def test_an_aborted_upload_takes_nothing_more_and_leaves_nothing(network: Network) -> None:
    """Abort deletes the replicas; chunks and completion are conflicts afterwards; abort again is fine."""
    user = (await network.user()).user.id
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "f", 8, None)
    await sessions.put_chunk(user, upload.id, 0, b"abcdefgh")
    await sessions.abort(user, upload.id)
    await sessions.abort(user, upload.id)
    with pytest.raises(Conflict, match="aborted"):
        await sessions.put_chunk(user, upload.id, 0, b"abcdefgh")
    with pytest.raises(Conflict, match="aborted"):
        await sessions.complete(user, upload.id)
    await wait_held(network, 0)


async def test_others_see_nothing(network: Network) -> None:
    """Another user's uploads and files are not found, rather than forbidden."""
    ann, bob = (await network.user()).user.id, (await network.user("bob@example.com")).user.id
    services = network.services
    upload = await services.sessions.initiate(ann, "f", 1, None)
    file = await put(network, ann, b"x")
    for attempt in (
        lambda: services.sessions.put_chunk(bob, upload.id, 0, b"x"),
        lambda: services.sessions.complete(bob, upload.id),
        lambda: services.sessions.abort(bob, upload.id),
        lambda: services.sessions.progress(bob, upload.id),
        lambda: services.files.find(bob, file.id),
        lambda: services.files.delete(bob, file.id),
    ):
        with pytest.raises(NotFound):
            await attempt()
    assert await get(network, await services.files.find_ready(ann, file.id)) == b"x"


async def test_deleting_destroys_the_key_and_empties_the_nodes(network: Network, pool: Pool) -> None:
    """After a delete the row holds neither key nor name, and the replicas go from every node that is there."""
    user = (await network.user()).user.id
    file = await put(network, user, secrets.token_bytes(3 * CHUNK_BYTES), name="private.txt")
    await network.services.files.delete(user, file.id)
    row = await pool.fetch_one(
        "select name, wrapped_key, wrap_secret, status::text from files where id = %s", [file.id]
    )
    assert row == ("", None, None, "deleted")
    await wait_held(network, 0)
    with pytest.raises(NotFound):
        await network.services.files.delete(user, file.id)


async def test_an_absent_node_forgets_when_it_is_back(network: Network) -> None:
    """Deletions wait for nodes that are away."""
    user = (await network.user()).user.id
    file = await put(network, user, b"x")
    absent = (await holders(network))[0]
    absent.kill()
    await network.services.files.delete(user, file.id)
    await wait_held(network, 1)
    await network.start(absent)
    network.services.files.deletions_due.ring()
    await wait_held(network, 0)


async def test_sizes_beyond_the_limits_are_refused(network: Network) -> None:
    """Negative and huge sizes never begin an upload."""
    user = (await network.user()).user.id
    with pytest.raises(Invalid):
        await network.services.sessions.initiate(user, "f", -1, None)
    with pytest.raises(TooLarge):
        await network.services.sessions.initiate(user, "f", 10**12 + 1, None)
    for replicas in (0, 11):
        with pytest.raises(Invalid):
            await network.services.sessions.initiate(user, "f", 1, replicas)


async def test_an_expired_upload_is_dropped(network: Network, pool: Pool) -> None:
    """After its time an upload takes nothing, and the worker removes it."""
    user = (await network.user()).user.id
    sessions = network.services.sessions
    upload = await sessions.initiate(user, "f", 1, None)
    await pool.execute("update uploads set expires_at = created_at where id = %s", [upload.id])
    with pytest.raises(Conflict, match="expired"):
        await sessions.put_chunk(user, upload.id, 0, b"x")
    assert await sessions.expire() == 1
    assert await sessions.expire() == 0
    assert await network.services.files.page(user, None, 10) == []


def _damage(node: Member, change: Callable[[bytes], bytes]) -> None:
    """Change what lies on a node's disk, behind the back of its index."""
    stored = node.store._chunks
    for replica, (chunk, data) in list(stored.items()):
        stored[replica] = (chunk, change(data))
