"""A user's commands on files: put, get, ls, rm."""

import functools
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import click
import trio

from fsn.cli.exits import json_option, print_json
from fsn.cli.progress import open_progress, printable
from fsn.cli.session import url_option, with_client
from fsn.client import Client, File
from fsn.client.values import as_json as document_of
from fsn.core.errors import Conflict, Invalid, NotFound
from fsn.core.ids import FileId, parse_uuid
from fsn.core.units import format_size

__all__ = ["get", "ls", "put", "rm"]

_STDIN_PIECE_BYTES = 256 * 1024


def _check_local_names(paths: tuple[str, ...], filename: str | None) -> None:
    if filename is not None and len(paths) > 1:
        raise Invalid("--filename names one upload; several were given")
    if "-" in paths and filename is None:
        raise Invalid("standard input has no name; give one with --filename")


async def _stdin() -> AsyncGenerator[bytes, None]:
    # abandoned on cancel: a terminal may never send another byte, and the thread holds nothing but the read
    read = functools.partial(os.read, sys.stdin.fileno(), _STDIN_PIECE_BYTES)
    while piece := await trio.to_thread.run_sync(read, abandon_on_cancel=True):
        yield piece


async def _put_one(client: Client, path: str, filename: str | None, replicas: int | None, resumable: bool) -> File:
    with open_progress(filename or Path(path).name) as progress:
        if path == "-":
            async with aclosing(_stdin()) as pieces:
                return await client.upload(pieces, filename=filename, replicas=replicas, progress=progress)
        send = client.upload_resumable if resumable else client.upload
        return await send(path, filename=filename, replicas=replicas, progress=progress)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--filename", help="Store under this name (needed for standard input).")
@click.option(
    "--replicas", type=click.IntRange(1, 10), help="Copies of every chunk; else the coordinator's default (3)."
)
@click.option("--resumable", is_flag=True, help="Send in chunks that are tried again after a cut, several at a time.")
@url_option
@json_option
def put(
    paths: tuple[str, ...], filename: str | None, replicas: int | None, resumable: bool, url: str, as_json: bool
) -> None:
    """Upload files. When this returns, every chunk lies durably on all its nodes.

    \b
    fsn put photo.jpg
    fsn put --replicas 5 --resumable archive.tar
    tar c folder | fsn put - --filename folder.tar
    """
    _check_local_names(paths, filename)

    async def act(client: Client) -> list[File]:
        stored = []
        for path in paths:
            file = await _put_one(client, path, filename, replicas, resumable)
            stored.append(file)
            if not as_json:
                click.echo(f"{file.id}  {printable(file.filename)}  {_size(file)}")
        return stored

    stored = with_client(url, act)
    if as_json:
        print_json({"files": document_of(stored)})


async def _find(client: Client, id_or_name: str) -> File:
    """The file of this id, else the only one of this name; Conflict when several have it."""
    if parse_uuid(id_or_name) is not None:
        return await client.file(FileId(UUID(id_or_name)))
    found = [file async for file in client.files() if file.filename == id_or_name]
    if not found:
        raise NotFound(f"you have no file named {id_or_name!r}; `fsn ls` shows what there is")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} files are named {id_or_name!r}; say which by its id: " + ", ".join(str(f.id) for f in found),
            code="ambiguous_name",
        )
    return found[0]


def _local_name(file: File) -> str:
    """The file's name as a name in a folder of ours. The server's word is not trusted: no folder, no hidden surprise."""
    name = printable(file.filename.replace("\\", "/").rsplit("/", 1)[-1])
    return str(file.id) if name in ("", ".", "..") else name


def _destination(file: File, output: str | None) -> Path:
    if output is None:
        return Path(_local_name(file))
    path = Path(output)
    return path / _local_name(file) if path.is_dir() else path


async def _to_stdout(client: Client, file: File) -> None:
    with open_progress(file.filename) as progress:
        done = 0
        async with client.open_download(file.id) as pieces:
            async for piece in pieces:
                await trio.to_thread.run_sync(_write_all, piece)
                done += len(piece)
                if progress is not None:
                    progress(done, file.size_bytes)


def _write_all(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


async def _to_disk(client: Client, file: File, destination: Path, *, force: bool) -> None:
    if not force and destination.exists():  # noqa: ASYNC240 - one stat; said again, for good, when the file gets its name
        raise Conflict(f"{destination} exists already; give another name with -o, or --force", code="local_exists")
    with open_progress(file.filename) as progress:
        await client.download(file.id, destination, progress=progress, overwrite=force)


@click.command()
@click.argument("id_or_name", metavar="ID_OR_NAME")
@click.option("-o", "--output", metavar="PATH", help="Where to; a folder, a file, or - for standard output.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@url_option
@json_option
def get(id_or_name: str, output: str | None, force: bool, url: str, as_json: bool) -> None:
    """Download a file. Under its own name it is whole or not there; after a cut the same command goes on.

    \b
    fsn get photo.jpg
    fsn get 1f0c... -o /tmp/ --force
    fsn get folder.tar -o - | tar t
    """
    if output == "-" and as_json:
        raise Invalid("--json and the file itself cannot both go to standard output")

    async def act(client: Client) -> None:
        file = await _find(client, id_or_name)
        if output == "-":
            return await _to_stdout(client, file)
        destination = _destination(file, output)
        await _to_disk(client, file, destination, force=force)
        if as_json:
            print_json({"path": str(destination), "file": document_of(file)})
        else:
            click.echo(f"{destination}  {_size(file)}")
        return None

    with_client(url, act)


def _size(file: File) -> str:
    return "" if file.size_bytes is None else format_size(file.size_bytes)


def _row(file: File) -> tuple[str, str, str, str, str]:
    uploaded = "" if file.created_at is None else f"{file.created_at:%Y-%m-%d %H:%M}"
    return str(file.id), _size(file), file.status, uploaded, printable(file.filename)


def _print_table(files: list[File]) -> None:
    rows = [_row(file) for file in files]
    if sys.stdout.isatty():
        _print_rich(rows)
    else:
        for row in rows:
            click.echo("\t".join(row))


def _print_rich(rows: list[tuple[str, str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("ID", "SIZE", "STATUS", "UPLOADED", "NAME"):
        table.add_column(name, justify="right" if name == "SIZE" else "left", no_wrap=name == "ID")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@click.command()
@url_option
@json_option
def ls(url: str, as_json: bool) -> None:
    """List your files, newest first: a table on a terminal, else columns separated by tabs.

    \b
    fsn ls
    fsn ls --json | jq -r '.files[].id'
    """

    async def act(client: Client) -> list[File]:
        return [file async for file in client.files()]

    files = with_client(url, act)
    if as_json:
        print_json({"files": document_of(files)})
    else:
        _print_table(files)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@json_option
def rm(ids: tuple[str, ...], yes: bool, url: str, as_json: bool) -> None:
    """Delete files for good: their keys are destroyed, so that what nodes still hold is worthless.

    \b
    fsn rm 1f0c... --yes
    """
    wrong = [text for text in ids if parse_uuid(text) is None]
    if wrong:
        raise Invalid(f"files are deleted by id (see `fsn ls`), so that no other is hit; got {', '.join(wrong)}")
    if not yes:
        _confirm(len(ids))

    async def act(client: Client) -> None:
        for text in ids:
            await client.delete(FileId(UUID(text)))

    with_client(url, act)
    if as_json:
        print_json({"deleted": list(ids)})


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise Invalid("deleting is for good: say --yes where nobody can be asked")
    click.confirm(f"Delete {count} file{'s' * (count > 1)} for good?", abort=True, err=True)
