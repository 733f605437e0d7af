"""A coordinator's HTTP API on a loopback port, with four nodes behind it in this process."""

import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import trio

from fsn.coord.database.pool import Pool
from fsn.web.app import coordinator_app
from fsn.web.config import HttpConfig, LimitsConfig
from fsn.web.server import serve_http
from tests.coord.network import CONFIG, Network, open_network

Json = dict[str, object]


class Api:
    """The API and who uses it."""

    def __init__(self, http: httpx.AsyncClient, network: Network, clients: AsyncExitStack) -> None:
        self.http = http
        self.network = network
        self._clients = clients

    async def user(self, email: str = "ann@example.com") -> httpx.AsyncClient:
        """A client that is logged in as a new user."""
        body = {"email": email, "password": "secret1"}
        assert (await self.http.post("/api/v1/auth/register", json=body)).status_code == 201
        token = (await self.http.post("/api/v1/auth/login", json=body)).json()["token"]
        client = httpx.AsyncClient(
            base_url=self.http.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        return await self._clients.enter_async_context(client)


@pytest.fixture
async def api(pool: Pool) -> AsyncIterator[Api]:
    """The API, served over a real socket."""
    async with open_network(pool, CONFIG, nodes=4) as network, open_api(network) as api:
        yield api


@asynccontextmanager
async def open_api(
    network: Network, limits: LimitsConfig | None = None, trusted_proxies: tuple[str, ...] = ()
) -> AsyncIterator[Api]:
    """The API of a coordinator in this process."""
    config = HttpConfig(port=0, graceful_timeout_seconds=1, trusted_proxies=trusted_proxies)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        app = coordinator_app(network.services, config, lambda _: ("/ip4/127.0.0.1/tcp/4001",), limits)
        port = await nursery.start(functools.partial(serve_http, app, config, shutdown=stopping))
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
            AsyncExitStack() as clients,
        ):
            yield Api(http, network, clients)
        stopping.set()
