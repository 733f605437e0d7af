"""`Client`: everything that a user can do over the HTTP API, from a trio program."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

from fsn.client.connection import Connection, Timeouts
from fsn.client.deleting import delete_file
from fsn.client.downloading import download, open_range
from fsn.client.pages import Pages
from fsn.client.retrying import Retrying
from fsn.client.sources import Progress, Source
from fsn.client.uploading import upload, upload_resumable
from fsn.client.values import Balance, File, Node, ProofRound, Quote, Session, User, structure
from fsn.core.errors import Invalid
from fsn.core.ids import FileId, NodeId, UploadId

__all__ = ["Client"]


class Client:
    """A user of one coordinator: `async with Client("http://localhost:8080", token) as client`.

    Every error is an FsnError: what the server refused by its code, else Unreachable, PeerTimeout, ProtocolViolation. Requests
    that can be repeated without harm are, a few times, after transient errors (`retrying`); each wait is bounded
    (`timeouts`), the whole of a transfer is not: put `trio.fail_after` around it. One client may be used by many tasks.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        retrying: Retrying | None = None,
    ) -> None:
        """`url` is the coordinator's base, e.g. `http://localhost:8080`; Invalid when it is no http(s) URL."""
        self._connection = Connection(url, token, timeouts or Timeouts(), retrying or Retrying())

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """The coordinator's base URL, without a slash at its end."""
        return self._connection.url

    async def register(self, email: str, password: str) -> User:
        """A new account. Conflict when the email is taken, Invalid when email or password break the rules."""
        body = {"email": email, "password": password}
        return structure(await self._connection.call("POST", "/api/v1/auth/register", body=body), User)

    async def login(self, email: str, password: str) -> Session:
        """A new session, whose token this client uses from now on. Unauthorized, or QuotaExceeded after too many tries."""
        body = {"email": email, "password": password}
        session = structure(await self._connection.call("POST", "/api/v1/auth/login", body=body), Session)
        self._connection.token = session.token
        return session

    async def me(self) -> User:
        """Whose token this is."""
        return structure(await self._connection.call("GET", "/api/v1/auth/me"), User)

    async def set_budget(self, monthly: Decimal | None) -> User:
        """Bound what a calendar month (UTC) may cost in credits, None for no bound: no upload begins that would go beyond (then
        InsufficientCredits, `budget_reached`). What is stored already is charged all the same."""
        body = {"monthly_credits": None if monthly is None else f"{monthly:f}"}
        return structure(await self._connection.call("PUT", "/api/v1/auth/budget", body=body), User)

    async def upload(
        self,
        source: Source,
        *,
        filename: str | None = None,
        replicas: int | None = None,
        progress: Progress | None = None,
    ) -> File:
        """Store a path, bytes, or an async iterator of bytes in one streamed request; memory does not grow with the size.

        When it returns, every chunk lies durably on all its nodes. Cancelled or failed, nothing is stored; it is not tried
        again by itself (see `upload_resumable`). A path gives its own name; bytes and iterators need `filename`. `replicas`
        None is the coordinator's default. Conflict (`file_changed`) when the file changes while it is read.
        """
        return await upload(self._connection, source, filename, replicas, progress)

    async def upload_resumable(
        self,
        path: str | os.PathLike[str],
        *,
        filename: str | None = None,
        replicas: int | None = None,
        parallel: int = 4,
        progress: Progress | None = None,
        upload_id: UploadId | None = None,
        started: Callable[[UploadId], None] | None = None,
    ) -> File:
        """Store a file chunk by chunk, `parallel` requests at a time; after a cut only what is missing is sent.

        `started` is told the upload's id at once. Keep it, and a later call with `upload_id` goes on where this one ended (for
        48 hours; the file must be the same, else Conflict). Cancelling leaves the upload open.
        """
        if parallel < 1:
            raise Invalid(f"at least one request at a time is wanted; got parallel={parallel}")
        return await upload_resumable(
            self._connection,
            path,
            filename=filename,
            replicas=replicas,
            parallel=parallel,
            progress=progress,
            upload_id=upload_id,
            started=started,
        )

    async def abort_upload(self, upload_id: UploadId) -> None:
        """Give up an upload in steps; what was reserved for it is released."""
        await self._connection.call("DELETE", f"/api/v1/files/upload/{upload_id}")

    async def download(
        self,
        file_id: FileId,
        destination: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        resume: bool = True,
        overwrite: bool = True,
    ) -> None:
        """Fetch a file to the path `destination`.

        Until every byte is there and synced it is called `destination.part`; then it is renamed, so that under its own name it
        is whole or absent, also after a power cut. Cuts are resumed by Range and If-Range; `resume` also goes on with what
        an earlier call left. Conflict when `overwrite` is False and the destination exists, or another download to it runs.
        """
        path = Path(destination)
        if path.is_dir():  # noqa: ASYNC240 - one stat of a local path
            raise Invalid(f"a file's path is wanted; {path} is a folder")
        await download(self._connection, file_id, path, progress=progress, resume=resume, overwrite=overwrite)

    def open_download(
        self, file_id: FileId, begin: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes `begin` to `end` (exclusive; None: to the last) as they arrive. A cut raises Unreachable, never ends early."""
        return open_range(self._connection, file_id, begin, end)

    def files(self, *, page_size: int = 200) -> AsyncIterator[File]:
        """All files of the account, in the server's order (newest first)."""
        return Pages(self._connection, "/api/v1/files", "files", File, page_size)

    async def file(self, file_id: FileId) -> File:
        """One file with its health; NotFound, also for another account's file."""
        return structure(await self._connection.call("GET", f"/api/v1/files/{file_id}"), File)

    async def delete(self, file_id: FileId) -> None:
        """Delete a file for good; NotFound when it is not there. (A repeated try that finds it gone counts as done.)"""
        await delete_file(self._connection, file_id)

    async def quote(self, size_bytes: int, replicas: int | None = None) -> Quote:
        """The price of storing `size_bytes` for 30 days."""
        params = {"size_bytes": str(size_bytes)} | ({} if replicas is None else {"replicas": str(replicas)})
        return structure(await self._connection.call("GET", "/api/v1/quote", params=params), Quote)

    async def balance(self) -> Balance:
        """The account's credits."""
        return structure(await self._connection.call("GET", "/api/v1/balance"), Balance)

    async def proof_rounds(self, node_id: NodeId) -> Sequence[ProofRound]:
        """A storage node's last rounds of proofs, the newest first, as anyone may see them; NotFound when there is no such node."""
        answer = await self._connection.call("GET", f"/api/v1/nodes/{node_id}/proofs", params={"limit": "1"})
        return [structure(each, ProofRound) for each in answer["rounds"]]

    def nodes(self, *, page_size: int = 200) -> AsyncIterator[Node]:
        """All storage nodes, as anyone may see them."""
        return Pages(self._connection, "/api/v1/nodes", "nodes", Node, page_size)
