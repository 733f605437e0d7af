"""A coordinator's HTTP API on a loopback port, with four nodes behind it in this process."""

import functools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import httpx
import jsonschema
import msgspec
import pytest
import trio

from fsn.coord.config import UploadConfig
from fsn.coord.database.pool import Pool
from fsn.web.app import coordinator_app, coordinator_operations
from fsn.web.config import HttpConfig, LimitsConfig
from fsn.web.docs import coordinator_document
from fsn.web.server import serve_http
from tests.coord.network import CONFIG, Network, open_network

Json = dict[str, object]


PATIENT = attrs.evolve(CONFIG, upload=UploadConfig(store_seconds=10, chunk_seconds=30))
"""What is tested here are answers: on a busy machine a node may take its time."""


@attrs.frozen
class Document:
    """An OpenAPI document, which answers can be held against."""

    whole: dict[str, Any]

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """What it says of `GET /a/{b}`."""
        found: dict[str, Any] = self.whole["paths"][path][method.lower()]
        return found

    async def check(self, response: httpx.Response) -> None:
        """Fail unless the response's status, type, headers and JSON are as told. Paths and methods that are not in it pass."""
        told = self._told(response.request)
        if told is None:
            return
        assert str(response.status_code) in told["responses"], (
            f"{response.request} has no answer {response.status_code}"
        )
        answer = told["responses"][str(response.status_code)]
        assert set(map(str.lower, answer["headers"])) - {"content-range"} <= set(response.headers), response.headers
        content = answer.get("content", {})
        kind = response.headers["content-type"].partition(";")[0]
        assert not content or kind in (*content, "multipart/byteranges"), f"{response.request} answers {kind}"
        if content and kind.endswith("json") and await response.aread():
            schema = {**content[kind].get("schema", {}), "components": self.whole["components"]}
            jsonschema.Draft202012Validator(schema).validate(response.json())

    def _told(self, request: httpx.Request) -> dict[str, Any] | None:
        identifier = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
        for path, methods in self.whole["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", identifier, path), request.url.path):
                found: dict[str, Any] | None = methods.get(request.method.lower())
                return found
        return None


class Api:
    """The API and who uses it. Every answer is held against the OpenAPI document."""

    def __init__(self, http: httpx.AsyncClient, network: Network, clients: AsyncExitStack) -> None:
        self.http = http
        self.network = network
        self._clients = clients

    async def user(self, email: str = "ann@example.com") -> httpx.AsyncClient:
        """A client that is logged in as a new user."""
        body = {"email": email, "password": "secret1"}
        assert (await self.http.post("/api/v1/auth/register", json=body)).status_code == 201
        token = (await self.http.post("/api/v1/auth/login", json=body)).json()["token"]
        headers, hooks = {"Authorization": f"Bearer {token}"}, self.http.event_hooks
        client = httpx.AsyncClient(base_url=self.http.base_url, headers=headers, event_hooks=hooks, timeout=30)
        return await self._clients.enter_async_context(client)


@pytest.fixture
async def api(pool: Pool) -> AsyncIterator[Api]:
    """The API, served over a real socket."""
    async with open_network(pool, PATIENT, nodes=4) as network, open_api(network) as api:
        yield api


@asynccontextmanager
async def open_api(
    network: Network, limits: LimitsConfig | None = None, trusted_proxies: tuple[str, ...] = ()
) -> AsyncIterator[Api]:
    """The API of a coordinator in this process."""
    config = HttpConfig(port=0, graceful_timeout_seconds=1, trusted_proxies=trusted_proxies)
    stopping, addresses = trio.Event(), ("/ip4/127.0.0.1/tcp/4001",)
    document = coordinator_document(coordinator_operations(network.services, lambda _: addresses))
    hooks = {"response": [Document(json.loads(msgspec.json.encode(document))).check]}
    async with trio.open_nursery() as nursery:
        app = coordinator_app(network.services, config, lambda _: addresses, limits)
        port = await nursery.start(functools.partial(serve_http, app, config, shutdown=stopping))
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, event_hooks=hooks, timeout=30) as http, AsyncExitStack() as clients:
            yield Api(http, network, clients)
        stopping.set()
