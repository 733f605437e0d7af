"""A coordinator's HTTP API over real loopback sockets, in memory, which misbehaves on demand."""

import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import attrs
import h11
import trio

CHUNK = 1000
USER = {"id": str(UUID(int=7)), "email": "ann@example.com", "credits": "1000.00", "since": "an unknown member"}


@attrs.define
class Stored:
    """One file, or an upload in steps that is to become one."""

    id: str
    filename: str
    data: bytes
    etag: str
    status: str = "ready"
    chunks: dict[int, bytes] = attrs.Factory(dict)
    size_bytes: int = 0

    def as_json(self) -> dict[str, object]:
        size = len(self.data) if self.status == "ready" else self.size_bytes
        return {"id": self.id, "filename": self.filename, "size_bytes": size, "status": self.status, "new": [1]}


@attrs.define
class FakeCoordinator:
    """State and faults; `requests` are the (method, path) pairs that arrived, `ranges` the Range headers of downloads."""

    port: int = 0
    files: dict[str, Stored] = attrs.Factory(dict)
    uploads: dict[str, Stored] = attrs.Factory(dict)
    requests: list[tuple[str, str]] = attrs.Factory(list)
    ranges: list[str | None] = attrs.Factory(list)
    problems: deque[tuple[int, dict[str, Any], dict[str, str]]] = attrs.Factory(deque)
    cut_downloads_after: deque[int] = attrs.Factory(deque)
    cut_requests: int = 0
    lose_answers: int = 0
    surplus: bytes = b""
    most_chunks_at_once: int = 0
    chunks_at_once: int = 0
    account: dict[str, str] = attrs.Factory(dict)
    """What the user's account has beside the usual."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, data: bytes, filename: str = "photo.jpg") -> Stored:
        stored = Stored(str(uuid4()), filename, data, f'"{uuid4().hex}"')
        self.files[stored.id] = stored
        return stored


@asynccontextmanager
async def open_fake_coordinator() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        fake.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, lambda stream: _Door(fake, stream).serve(), listeners)
        yield fake
        nursery.cancel_scope.cancel()


class Cut(Exception):
    """Close the connection now."""


class _Door:
    """One connection."""

    def __init__(self, fake: FakeCoordinator, stream: trio.abc.Stream) -> None:
        self.fake, self.stream, self.http = fake, stream, h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        async with self.stream:
            try:
                while await self._serve_one():
                    self.http.start_next_cycle()
            except (Cut, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
                pass

    async def _event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def _serve_one(self) -> bool:
        request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        body = bytearray()
        if self.fake.cut_requests:
            self.fake.cut_requests -= 1
            raise Cut
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
        await self._answer(request, bytes(body))
        return True

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        target = urlsplit(request.target.decode())
        method, headers = request.method.decode(), {k.decode(): v.decode() for k, v in request.headers}
        query = {k: v[0] for k, v in parse_qs(target.query).items()}
        self.fake.requests.append((method, target.path))
        if self.fake.problems:
            status, problem, extra = self.fake.problems.popleft()
            return await self._send(status, json.dumps(problem).encode(), extra)
        if target.path.endswith("/download"):
            return await self._download(target.path.split("/")[4], headers)
        status, document = await self._api(method, target.path, query, headers, body)
        if self.fake.lose_answers:
            self.fake.lose_answers -= 1
            raise Cut
        return await self._send(status, b"" if document is None else json.dumps(document).encode())

    async def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, declared: int = -1) -> None:
        length = len(body) if declared < 0 else declared
        fields = {"Content-Length": str(length), "Connection": "keep-alive"} | (headers or {})
        await self.stream.send_all(
            self.http.send(h11.Response(status_code=status, headers=list(fields.items()))) or b""
        )
        await self.stream.send_all(self.http.send(h11.Data(data=body)) or b"")
        if len(body) != length:
            raise Cut
        await self.stream.send_all(self.http.send(h11.EndOfMessage()) or b"")

    async def _download(self, file_id: str, headers: dict[str, str]) -> None:
        self.fake.ranges.append(headers.get("range"))
        if file_id not in self.fake.files:
            return await self._send(404, b'{"code":"not_found","detail":"there is no such file"}')
        file = self.fake.files[file_id]
        extra, status, data = {"ETag": file.etag}, 200, file.data + self.fake.surplus
        if (found := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))) and headers.get(
            "if-range", file.etag
        ) == file.etag:
            begin, end = int(found[1]), int(found[2]) + 1 if found[2] else len(file.data)
            status, data = 206, file.data[begin:end]
            extra["Content-Range"] = f"bytes {begin}-{begin + len(data) - 1}/{len(file.data)}"
        length = len(data)
        if self.fake.cut_downloads_after:
            data = data[: self.fake.cut_downloads_after.popleft()]
        return await self._send(status, data, extra, declared=length)

    async def _api(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, object]:
        match method, path.removeprefix("/api/v1/").split("/"):
            case "POST", ["auth", "register"]:
                return 201, USER
            case "POST", ["auth", "login"]:
                good = json.loads(body)["password"] == "test123"
                session = {"token": "t0k3n", "expires_at": "2027-01-01T00:00:00Z", "user": USER}
                return (
                    (200, session) if good else (401, {"code": "unauthorized", "detail": "unknown email or password"})
                )
            case "GET", ["auth", "me"]:
                good = headers.get("authorization") == "Bearer t0k3n"
                return (
                    (200, USER | self.fake.account)
                    if good
                    else (401, {"code": "unauthorized", "detail": "no valid token"})
                )
            case "GET", ["balance"]:
                return 200, {"balance": "1000.00"}
            case "GET", ["quote"]:
                return 200, {"size_bytes": int(query["size_bytes"]), "replicas": 3, "cost": "4.50"}
            case "GET", ["nodes", _, "proofs"]:
                sums = {"asked": 5, "passed": 4, "failed": 0, "missed": 1, "refused": 0}
                rounds = [
                    {"round": 7, "begins_at": "2026-11-26T20:00:00Z", "judged_at": None, "suspicion": None, **sums}
                ]
                return 200, {"rounds": rounds, "events": [], "failures": [], "next_cursor": None}
            case "GET", ["nodes"]:
                return 200, {"nodes": [{"id": str(UUID(int=1)), "name": "n1", "status": "online"}], "next_cursor": None}
            case "PUT", ["files"]:
                return 201, self.fake.add(body, query["filename"]).as_json()
            case "GET", ["files"]:
                return 200, self._page(query)
            case verb, ["files", "upload", *rest]:
                return await self._upload(verb, rest, query, body)
            case "GET", ["files", file_id] if file_id in self.fake.files:
                return 200, self.fake.files[file_id].as_json()
            case "DELETE", ["files", file_id] if file_id in self.fake.files:
                del self.fake.files[file_id]
                return 204, None
        return 404, {"code": "not_found", "detail": "there is no such thing"}

    def _page(self, query: dict[str, str]) -> dict[str, object]:
        begin, limit = int(query.get("cursor", 0)), int(query["limit"])
        files = list(self.fake.files.values())
        after = begin + limit
        return {
            "files": [file.as_json() for file in files[begin:after]],
            "next_cursor": str(after) if after < len(files) else None,
        }

    async def _upload(self, method: str, rest: list[str], query: dict[str, str], body: bytes) -> tuple[int, object]:
        if (method, rest) == ("POST", ["initiate"]):
            wanted = json.loads(body)
            upload = Stored(str(uuid4()), wanted["filename"], b"", "", "uploading", size_bytes=wanted["size_bytes"])
            self.fake.uploads[str(uuid4())] = upload
        upload_id = next((k for k, v in self.fake.uploads.items() if k == rest[0] or rest == ["initiate"]), None)
        if upload_id is None:
            return 404, {"code": "not_found", "detail": "there is no such upload"}
        upload = self.fake.uploads[upload_id]
        if rest[1:] == ["chunk"]:
            await self._count_chunk(upload, int(query["index"]), body)
        if rest[1:] == ["complete"]:
            upload.data = b"".join(upload.chunks[i] for i in sorted(upload.chunks))
            upload.status, upload.etag = "ready", f'"{upload.id}"'
            self.fake.files[upload.id] = upload
            return 200, upload.as_json()
        return 200, {
            "upload_id": upload_id,
            "file_id": upload.id,
            "chunk_size": CHUNK,
            "size_bytes": upload.size_bytes,
            "received": [[i, i] for i in sorted(upload.chunks)],
        }

    async def _count_chunk(self, upload: Stored, index: int, body: bytes) -> None:
        self.fake.chunks_at_once += 1
        self.fake.most_chunks_at_once = max(self.fake.most_chunks_at_once, self.fake.chunks_at_once)
        await trio.sleep(0.005)
        self.fake.chunks_at_once -= 1
        upload.chunks[index] = body
