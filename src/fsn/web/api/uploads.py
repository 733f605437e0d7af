"""Uploads in steps over HTTP: initiate, chunks in any order, complete."""

import base64
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import msgspec

from fsn.coord.catalog import Upload, UploadState
from fsn.coord.services import Services
from fsn.core.chunking import CHUNK_BYTES, MAX_CHUNKS, MAX_FILE_BYTES
from fsn.core.errors import (
    Conflict,
    InsufficientCredits,
    Invalid,
    NotFound,
    TooFewCopies,
    TooFewNodes,
    TooLarge,
    Unavailable,
)
from fsn.core.ids import UploadId, chunk_id
from fsn.core.units import format_credits
from fsn.web.api.fields import Filename, Replicas
from fsn.web.api.views import LATER, FileView, file_view
from fsn.web.auth import USER, asking_user
from fsn.web.multipart import Field, read_form
from fsn.web.operations import Coded, FileContent, Operations, RequestModel, form_field
from fsn.web.quart_front import current_request

__all__ = ["declare_uploads"]

UPLOAD = "/api/v1/files/upload"
LISTED_CHUNKS = 10_000
LONGEST_CHUNK_BODY_BYTES = CHUNK_BYTES + 16 * 1024
"""A chunk, and what a form has around it."""
_STEPS = ("put_chunk", "get_upload", "list_chunks", "complete_upload", "abort_upload")
_CLOSED = Coded(Conflict, ("upload_closed",))
_COMPLETING = Coded(Conflict, ("chunks_missing", "upload_closed"))


Range = Annotated[tuple[int, ...], msgspec.Meta(min_length=2, max_length=2)]
ChunkIndex = Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNKS - 1)]


class InitiateBody(RequestModel, frozen=True, kw_only=True):
    """The file to come."""

    filename: Filename
    size_bytes: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_FILE_BYTES})]
    replicas: Replicas | None = None


class ChunkQuery(RequestModel, frozen=True, kw_only=True):
    """Which chunk the body is; a form may say it in a field instead."""

    index: ChunkIndex | None = None


class ChunkForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form with a chunk."""

    index: ChunkIndex | None = None
    chunk: FileContent


class ChunksQuery(RequestModel, frozen=True, kw_only=True):
    """Which part of the chunk list is wanted."""

    first: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0


class ChunkView(msgspec.Struct):
    """One chunk to be sent."""

    index: int
    id: UUID
    size_bytes: int


class InitiatedView(msgspec.Struct):
    """An upload to be filled. `chunks` has the first 10,000; `next_chunk` says where `GET .../{upload_id}/chunks?first=` goes on.

    `encrypted_key` is the file's key, wrapped: of use to nobody but the coordinator, and to nobody at all once the file is deleted.
    """

    upload_id: UUID
    file_id: UUID
    chunk_size: int
    chunk_count: int
    chunks: list[ChunkView]
    next_chunk: int | None
    cost: str
    encrypted_key: str
    expires_at: datetime


class ChunksView(msgspec.Struct):
    """A page of the chunks of an upload."""

    chunks: list[ChunkView]
    next_chunk: int | None


class ChunkStoredView(msgspec.Struct):
    """The chunk is durable on all its nodes."""

    index: int
    id: UUID
    size_bytes: int


class UploadView(msgspec.Struct):
    """How far an upload is: `received` are ranges [first, last] of the chunks that are in, at most 10,000 of them."""

    upload_id: UUID
    file_id: UUID
    state: UploadState
    size_bytes: int | None
    chunk_size: int
    chunk_count: int
    received_count: int
    received: Sequence[Range]
    expires_at: datetime


def declare_uploads(api: Operations, services: Services) -> None:
    """Add the operations on uploads in steps."""
    uploads, admission = services.sessions, services.admission

    @api.operation(
        "POST", f"{UPLOAD}/initiate", summary="Begin an upload in steps", tags=("uploads",), security=(USER,),
        body=InitiateBody, ok=(201, InitiatedView), leads_to={"upload_id": _STEPS},
        errors=(
            Coded(Invalid, ("invalid_filename",)), TooLarge, Coded(InsufficientCredits, ("budget_reached", "past_due")), TooFewNodes,
            Unavailable,
        ),
    )  # fmt: skip
    async def initiate_upload(body: InitiateBody) -> InitiatedView:
        """Then send every chunk and complete the upload, within 48 hours."""
        upload = await uploads.initiate(asking_user(), body.filename, body.size_bytes, body.replicas)
        return _initiated(upload, format_credits(await admission.cost(body.size_bytes, body.replicas)))

    @api.operation(
        "POST", f"{UPLOAD}/<uuid:upload_id>/chunk", summary="Send one chunk", tags=("uploads",), security=(USER,),
        query=ChunkQuery, raw="application/octet-stream", form=ChunkForm, ok=(200, ChunkStoredView),
        errors=(
            NotFound, Coded(Invalid, ("wrong_chunk_size",)), Coded(Conflict, ("chunk_differs", "upload_closed")), TooFewNodes,
            TooFewCopies, Unavailable,
        ), max_body_bytes=LONGEST_CHUNK_BODY_BYTES,
    )  # fmt: skip
    async def put_chunk(upload_id: UUID, query: ChunkQuery) -> ChunkStoredView:
        """The body is the chunk, or a form with a file `chunk` (and a field `index` before it). In any order, in parallel, again without
        harm. The answer comes when all wanted replicas are durable."""
        index, data = await _read_chunk(query.index)
        found = UploadId(upload_id)
        file = (await uploads.put_chunk(asking_user(), found, index, data)).file
        return ChunkStoredView(index, chunk_id(file.id, index), len(data))

    @api.operation(
        "GET", f"{UPLOAD}/<uuid:upload_id>", summary="How far an upload is", tags=("uploads",), security=(USER,),
        ok=(200, UploadView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def get_upload(upload_id: UUID) -> UploadView:
        """To go on after a break."""
        progress = await uploads.progress(asking_user(), UploadId(upload_id))
        upload, file = progress.upload, progress.upload.file
        return UploadView(
            upload_id=upload.id,
            file_id=file.id,
            state=upload.state,
            size_bytes=file.size_bytes,
            chunk_size=file.chunk_bytes,
            chunk_count=file.chunk_count,
            received_count=sum(last - first + 1 for first, last in progress.received),
            received=progress.received,
            expires_at=upload.expires_at,
        )

    @api.operation(
        "GET", f"{UPLOAD}/<uuid:upload_id>/chunks", summary="The chunks of an upload", tags=("uploads",), security=(USER,),
        query=ChunksQuery, ok=(200, ChunksView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def list_chunks(upload_id: UUID, query: ChunksQuery) -> ChunksView:
        """Ten thousand a page."""
        upload = (await uploads.progress(asking_user(), UploadId(upload_id))).upload
        return ChunksView(*_chunk_page(upload, query.first))

    @api.operation(
        "POST", f"{UPLOAD}/<uuid:upload_id>/complete", summary="Complete an upload", tags=("uploads",), security=(USER,),
        ok=(200, FileView), leads_to=LATER, errors=(NotFound, _COMPLETING, InsufficientCredits, Unavailable),
    )  # fmt: skip
    async def complete_upload(upload_id: UUID) -> FileView:
        """All chunks must be in; the credits are taken. Again is a success."""
        return file_view(await uploads.complete(asking_user(), UploadId(upload_id)))

    @api.operation(
        "DELETE", f"{UPLOAD}/<uuid:upload_id>", summary="Drop an upload", tags=("uploads",), security=(USER,),
        ok=(204, None), errors=(NotFound, _CLOSED, Unavailable),
    )  # fmt: skip
    async def abort_upload(upload_id: UUID) -> None:
        """What was stored of it is deleted. Again is a success."""
        await uploads.abort(asking_user(), UploadId(upload_id))


def _initiated(upload: Upload, cost: str) -> InitiatedView:
    chunks, following = _chunk_page(upload, 0)
    return InitiatedView(
        upload_id=upload.id,
        file_id=upload.file.id,
        chunk_size=upload.file.chunk_bytes,
        chunk_count=upload.file.chunk_count,
        chunks=chunks,
        next_chunk=following,
        cost=cost,
        encrypted_key=base64.b64encode(upload.file.wrapped_key or b"").decode(),
        expires_at=upload.expires_at,
    )


def _chunk_page(upload: Upload, first: int) -> tuple[list[ChunkView], int | None]:
    file, end = upload.file, min(first + LISTED_CHUNKS, upload.file.chunk_count)
    chunks = [ChunkView(index, chunk_id(file.id, index), file.chunk_size(index)) for index in range(first, end)]
    return chunks, end if end < file.chunk_count else None


async def _read_chunk(index: int | None) -> tuple[int, bytes]:
    request = current_request()
    if request.mimetype == "multipart/form-data":
        return await _read_form_chunk(request.body, request.content_type or "", index)
    if index is None:
        raise Invalid("which chunk? A query parameter is wanted: ?index=0")
    return index, await request.body


async def _read_form_chunk(body: AsyncIterator[bytes], content_type: str, index: int | None) -> tuple[int, bytes]:
    data: bytes | None = None
    async for part in read_form(body, content_type):
        if isinstance(part, Field):
            if part.name == "index":
                index = form_field(ChunkIndex, "index", part.value)
            elif part.name == "chunk":
                data = part.value.encode()
        elif part.name == "chunk":
            data = b"".join([piece async for piece in cast(AsyncIterator[bytes], part)])
    if data is None:
        raise Invalid("the form must have a file named `chunk`")
    if index is None:
        raise Invalid("which chunk? A field `index` or a query parameter ?index=0 is wanted")
    return index, data
