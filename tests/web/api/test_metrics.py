"""`GET /metrics` of a coordinator: what it counts is documented, is true, and is for those who may see it."""

import functools
from pathlib import Path

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from fsn.coord.database.pool import Pool
from fsn.core.ids import PeerId
from fsn.p2p.server import serve_requests
from fsn.p2p.wire.messages import Refusal, RefusalCode, Response, StoreChunk
from fsn.web.app import coordinator_app
from fsn.web.config import HttpConfig
from fsn.web.server import serve_http
from tests.coord.network import CONFIG, open_network
from tests.web.api.conftest import Api
from tools.observability import exposed_names, metric_names

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(http: httpx.AsyncClient) -> Samples:
    """Every sample of the exposition."""
    response = await http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sample of that name and labels."""
    return samples[name, tuple(sorted(labels.items()))]


async def test_what_is_counted_is_documented(api: Api) -> None:
    """The page has every metric that is exposed, and no other."""
    await (await api.user()).put("/api/v1/files?filename=f", content=b"x")
    assert exposed_names((await api.http.get("/metrics")).text) == metric_names(PAGE.read_text(), "Coordinator")


async def test_an_upload_and_a_download_are_counted(api: Api) -> None:
    """Chunks once each, replicas once for each try, transactions with what they recorded, bytes of bodies, nodes by state."""
    user = await api.user()
    before = await scrape(api.http)
    file = (await user.put("/api/v1/files?filename=f", content=bytes(300_000))).json()
    await user.get(f"/api/v1/files/{file['id']}/download")
    await user.post("/api/v1/files/upload/initiate", json={"filename": "g", "size_bytes": 5})
    after = await scrape(api.http)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("fsn_chunk_stores_total", outcome="ok") == 2
    assert grown("fsn_chunk_store_seconds_count") == 2
    assert grown("fsn_replica_stores_total", outcome="ok") == 6
    assert grown("fsn_chunk_retrieves_total", outcome="ok") == 2
    assert grown("fsn_replica_retrieves_total", outcome="ok") == 2
    assert grown("fsn_recorder_batch_entries_sum") == 1  # a small file is one entry
    assert grown("fsn_http_received_bytes_total") >= 300_000
    assert grown("fsn_http_sent_bytes_total") >= 300_000
    assert grown("fsn_uploads_open") == 1
    assert value(after, "fsn_http_requests_total", method="PUT", route="/api/v1/files", status="201") == 1
    for name in ("fsn_chunk_stores_in_flight", "fsn_replica_stores_in_flight", "fsn_upload_window_bytes"):
        assert value(after, name) == 0
    assert value(after, "fsn_nodes_online") == 4
    assert sum(value(after, "fsn_nodes", state=state) for state in ("joining", "online")) == 4
    assert value(after, "fsn_nodes", state="left") == 0
    assert value(after, "fsn_database_up") == 1
    assert value(after, "fsn_database_pool_connections", state="idle") >= 1
    assert value(after, "fsn_database_connections_opened_total") >= 1


async def test_failures_are_counted(api: Api) -> None:
    """A node that refuses fails a try; a chunk that finds too few nodes fails as a whole; nothing stays in flight."""

    async def refusing(_: PeerId, message: StoreChunk) -> Response:
        await trio.lowlevel.checkpoint()
        return Refusal(RefusalCode.FULL, "no")

    for node in api.network.nodes[:2]:
        transport = api.network.memory.transport(node.identity.peer)
        serve_requests(transport, {StoreChunk: refusing}, may_ask=lambda _: True)
    response = await (await api.user()).put("/api/v1/files?filename=f", content=b"abcd")
    assert response.json()["code"] == "too_few_copies"
    samples = await scrape(api.http)
    assert value(samples, "fsn_chunk_stores_total", outcome="failed") == 1
    assert value(samples, "fsn_chunk_stores_total", outcome="ok") == 0
    assert value(samples, "fsn_replica_stores_total", outcome="ok") == 2
    assert value(samples, "fsn_replica_stores_total", outcome="failed") == 2
    assert value(samples, "fsn_replica_stores_in_flight") == 0


async def test_a_scrape_without_database_says_so(api: Api) -> None:
    """What is counted in the catalogue is left out, `fsn_database_up` is 0, and all else is there."""
    api.network.services.db.close()
    samples = await scrape(api.http)
    assert value(samples, "fsn_database_up") == 0
    assert value(samples, "fsn_nodes_online") == 4
    assert not any(name in ("fsn_uploads_open", "fsn_nodes") for name, _ in samples)


async def test_a_scrape_token_is_wanted_where_one_is_set(pool: Pool, tmp_path: Path) -> None:
    """None, a wrong one and the right one are told apart; the file's white space does not count."""
    file = tmp_path / "metrics.token"
    file.write_text("s3cret\n")
    config, stopping = HttpConfig(port=0, graceful_timeout_seconds=1, metrics_token_file=file), trio.Event()
    async with open_network(pool, CONFIG, nodes=0) as network, trio.open_nursery() as nursery:
        app = coordinator_app(network.services, config, lambda _: ())
        port = await nursery.start(functools.partial(serve_http, app, config, shutdown=stopping))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for headers, status, code in [
                ({}, 401, "token_missing"),
                ({"Authorization": "Bearer s3cre"}, 401, "token_invalid"),
                ({"Authorization": "Bearer s3cret"}, 200, None),
            ]:
                response = await http.get("/metrics", headers=headers)
                assert response.status_code == status
                assert code is None or response.json()["code"] == code
        stopping.set()
