"""Files over HTTP: put whole, list, look at, download, delete."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import cast
from uuid import UUID

import msgspec
from quart import Response

from fsn.coord.services import Services
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
from fsn.core.ids import FileId
from fsn.core.units import format_credits
from fsn.web.api.fields import Filename, Replicas
from fsn.web.api.paging import Page, decode_cursor, encode_cursor
from fsn.web.api.views import LATER, FileHealthView, FilesView, FileView, file_view
from fsn.web.auth import USER, asking_user
from fsn.web.multipart import Field, FilePart, read_form
from fsn.web.object_response import OBJECT_ANSWERS, OBJECT_HEADERS, OBJECT_REQUEST_HEADERS, object_response
from fsn.web.operations import Coded, FileContent, Operations, RequestModel, form_field, json_response
from fsn.web.quart_front import current_request
from fsn.web.ranges import ObjectFacts

__all__ = ["declare_files"]

FILES = "/api/v1/files"
_STORING = (
    Coded(Invalid, ("invalid_filename", "size_mismatch")), Coded(Conflict, ("upload_closed", "chunk_differs")),
    TooLarge, Coded(InsufficientCredits, ("budget_reached", "past_due")), TooFewNodes, TooFewCopies, Unavailable,
)  # fmt: skip
_LOCATION = {"Location": "The file's address."}


class PutQuery(RequestModel, frozen=True, kw_only=True):
    """The file's name, and how many replicas it gets (the server's default if not given)."""

    filename: Filename
    replicas: Replicas | None = None


class FileForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form with a file, stored under the name that the part has. `replicas` counts when it comes before the file."""

    replicas: Replicas | None = None
    file: FileContent


def declare_files(api: Operations, services: Services) -> None:
    """Add the operations on files."""
    _declare_storing(api, services)
    _declare_reading(api, services)

    @api.operation(
        "DELETE", f"{FILES}/<uuid:file_id>", summary="Delete a file", tags=("files",), security=(USER,),
        ok=(204, None), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def delete_file(file_id: UUID) -> None:
        """Its key is destroyed at once; its replicas go from nodes that are there now, and from the others when they are back."""
        await services.files.delete(asking_user(), FileId(file_id))


def _declare_storing(api: Operations, services: Services) -> None:
    @api.operation(
        "PUT", FILES, summary="Store a file", tags=("files",), security=(USER,),
        query=PutQuery, raw="application/octet-stream", ok=(201, FileView), ok_headers=_LOCATION, leads_to=LATER, errors=_STORING,
        max_body_bytes=None,
    )  # fmt: skip
    async def put_file(query: PutQuery) -> Response:
        """The body is the file, streamed. The answer comes when every replica is durable. A request that breaks off leaves nothing."""
        request = current_request()
        return await _store(services, query.filename, request.content_length, query.replicas, request.body)

    @api.operation(
        "POST", FILES, summary="Store a file from a form", tags=("files",), security=(USER,),
        form=FileForm, ok=(201, FileView), ok_headers=_LOCATION, leads_to=LATER, errors=_STORING, max_body_bytes=None,
    )  # fmt: skip
    async def post_file() -> Response:
        """The form's one file is stored under the name that it has there; a field `replicas` may come before it."""
        request = current_request()
        replicas: int | None = None
        form = read_form(request.body, request.content_type or "")
        async for part in form:
            if isinstance(part, FilePart):
                async with aclosing(_to_the_end(part, form)) as content:
                    return await _store(services, part.filename, None, replicas, content)
            replicas = form_field(Replicas, "replicas", part.value) if part.name == "replicas" else replicas
        raise Invalid("the form must have a file")


def _declare_reading(api: Operations, services: Services) -> None:
    @api.operation(
        "GET", FILES, summary="List files", tags=("files",), security=(USER,),
        query=Page, ok=(200, FilesView), errors=(Unavailable,),
    )  # fmt: skip
    async def list_files(query: Page) -> FilesView:
        """Newest first."""
        after = decode_cursor(query.cursor, tuple[datetime, UUID])
        files = await services.files.page(asking_user(), (after[0], FileId(after[1])) if after else None, query.limit)
        is_full = len(files) == query.limit
        following = encode_cursor((files[-1].created_at, files[-1].id)) if is_full else None
        return FilesView([file_view(file) for file in files], following)

    @api.operation(
        "GET", f"{FILES}/<uuid:file_id>", summary="One file, with its health", tags=("files",), security=(USER,),
        ok=(200, FileView), errors=(NotFound, Unavailable),
    )  # fmt: skip
    async def get_file(file_id: UUID) -> FileView:
        """Health counts replicas on nodes that are there now."""
        details = await services.files.details(asking_user(), FileId(file_id))
        found = details.health
        health = FileHealthView(
            found.live, details.file.pieces, found.chunks_below, found.chunks_in_repair, details.proved_at
        )
        view = file_view(details.file, health)
        view.cost_so_far = format_credits(details.paid)
        return view

    @api.operation(
        "GET", f"{FILES}/<uuid:file_id>/download", summary="Download a file", tags=("files",), security=(USER,),
        produces="application/octet-stream", headers=OBJECT_REQUEST_HEADERS, ok_headers=OBJECT_HEADERS, answers=OBJECT_ANSWERS,
        errors=(NotFound, Coded(Conflict, ("not_ready",)), TooFewCopies, Unavailable),
    )  # fmt: skip
    async def download_file(file_id: UUID) -> Response:
        """Streamed, with ranges and conditions. Every byte was authenticated before it leaves."""
        file = await services.files.find_ready(asking_user(), FileId(file_id))
        facts = ObjectFacts(
            size_bytes=file.size_bytes or 0,
            etag=file.id.hex,  # a file never changes under its id
            last_modified=file.ready_at or file.created_at,
            filename=file.name,
        )
        return await object_response(lambda begin, end: services.downloads.open_range(file, begin, end), facts)


async def _to_the_end(file: FilePart, form: AsyncIterator[Field | FilePart]) -> AsyncGenerator[bytes, None]:
    """The bytes of the file. Then the form must end, with nothing that should have come before: else the file is not stored."""
    async for piece in cast(AsyncIterator[bytes], file):
        yield piece
    async for part in form:
        if isinstance(part, FilePart):
            raise Invalid("a form has one file; a second one follows the first")
        if part.name == "replicas":
            raise Invalid("the field `replicas` must come before the file; it came after")


async def _store(
    services: Services, filename: str, size_bytes: int | None, replicas: int | None, body: AsyncIterator[bytes]
) -> Response:
    file = await services.uploads.store_stream(asking_user(), filename, size_bytes, replicas, body)
    return json_response(file_view(file), 201, {"Location": f"{FILES}/{file.id}"})
