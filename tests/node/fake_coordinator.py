"""What a coordinator tells nodes over HTTP: registrations, with the checks that the real one makes, and pages of statements. Real HTTP on
loopback."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import trio
from quart import Response, request

from fsn.core.ids import NodeId
from fsn.node.registration import SIGNED_PREFIX
from fsn.runtime.identity import Identity, verify
from fsn.web.config import HttpConfig
from fsn.web.quart_front import FrontQuart
from fsn.web.server import serve_http

MOST_PAID_OUT = 10**8
"""More is refused."""


class FakeCoordinator:
    """Registers nodes; `addresses` and `identity` are what it says of itself."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.addresses: list[str] = ["/ip4/127.0.0.1/tcp/1"]
        self.nodes: dict[str, NodeId] = {}
        self.registrations: list[dict[str, Any]] = []
        self.answer_instead: Response | None = None
        self.url = ""
        self.payouts: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] | None = None
        """What moved a node's reputation; None: it cannot be asked."""
        self.statement_pages: Callable[[str | None], dict[str, Any]] = lambda cursor: {
            "statements": [],
            "next_cursor": None,
        }
        self._nonces: dict[str, str] = {}

    def challenge(self, asked: dict[str, Any]) -> Response:
        self._nonces[asked["public_key"]] = nonce = secrets.token_hex(32)
        return _json(200, {"nonce": nonce, "expires_at": "2030-01-01T00:00:00Z"})

    def register(self, asked: dict[str, Any]) -> Response:
        if self.answer_instead is not None:
            return self.answer_instead
        key, nonce = bytes.fromhex(asked["public_key"]), self._nonces.pop(asked["public_key"])
        assert asked["nonce"] == nonce
        assert verify(key, SIGNED_PREFIX + bytes.fromhex(nonce) + key, bytes.fromhex(asked["signature"]))
        self.registrations.append(asked)
        node = self.nodes.setdefault(asked["public_key"], NodeId(uuid4()))
        coordinator = {"peer_id": self.identity.peer, "addresses": self.addresses}
        return _json(201, {"node_id": str(node), "api_key": secrets.token_hex(16), "coordinator": coordinator})


@asynccontextmanager
async def open_fake_coordinator() -> AsyncIterator[FakeCoordinator]:
    """One that listens for the length of the block."""
    fake = FakeCoordinator()
    app = FrontQuart(__name__)

    async def challenge() -> Response:
        return fake.challenge(await _body())

    async def register() -> Response:
        return fake.register(await _body())

    async def statements() -> Response:
        return _json(200, fake.statement_pages(request.args.get("cursor")))

    async def payouts() -> Response:
        if request.method == "POST":
            asked = await _body()
            if asked["micro_credits"] > MOST_PAID_OUT:
                return _json(409, {"status": 409, "code": "not_funded", "detail": "users have not bought so much"})
            if asked["id"] not in {each["id"] for each in fake.payouts}:
                fake.payouts.insert(0, {**asked, "status": "pending", "at": "2030-01-01T00:00:00.5Z", "note": None})
        return _json(201 if request.method == "POST" else 200, {"payouts": fake.payouts})

    async def proofs(node_id: str) -> Response:
        if fake.events is None:
            return _json(503, {"status": 503, "code": "unavailable", "detail": "the database is away"})
        return _json(200, {"events": fake.events})

    app.add_url_rule("/api/v1/nodes/<node_id>/proofs", "proofs", proofs)
    app.add_url_rule("/api/v1/payouts", "payouts", payouts, methods=["GET", "POST"])
    app.add_url_rule("/api/v1/statements", "statements", statements)
    app.add_url_rule("/api/v1/nodes/challenge", "challenge", challenge, methods=["POST"])
    app.add_url_rule("/api/v1/nodes/register", "register", register, methods=["POST"])
    async with trio.open_nursery() as nursery:
        stopping = trio.Event()
        port = await nursery.start(partial(serve_http, app, HttpConfig(port=0), shutdown=stopping))
        fake.url = f"http://127.0.0.1:{port}"
        yield fake
        nursery.cancel_scope.cancel()


async def _body() -> dict[str, Any]:
    return msgspec.json.decode(await request.body, type=dict[str, Any])


def _json(status: int, document: object) -> Response:
    kind = "application/json" if status < 400 else "application/problem+json"
    return Response(msgspec.json.encode(document), status, content_type=kind)
