"""`fsn demo`: a whole network on this machine, a file through it and back, and a node killed in the middle."""

import hashlib
import os
import secrets
import shlex
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import click
import trio

from fsn.cli.again import program
from fsn.cli.exits import json_option, print_json
from fsn.cli.local_network import Daemon, LocalNetwork, free_port, make_folder, open_local_network
from fsn.cli.progress import ShowProgress, open_progress
from fsn.client import Client, File
from fsn.core.errors import ConfigError, Conflict, Corrupt, PeerTimeout
from fsn.core.units import format_size, parse_size

__all__ = ["demo", "killing_half_way"]

_BLOCK_BYTES = 4 * 1024 * 1024
_SETTINGS = {"FSN_CREDITS__PRICE_PER_GB_MONTH": "1.5", "FSN_AUDIT__ROUND_HOURS": "0.01"}
"""A price, and rounds of 36 s: who looks on does not wait for four hours."""
_PROOFS_SECONDS = 90.0
_COPIES_OF_ALL = 6
"""On this one disk: the file itself, three replicas, the download, and room for PostgreSQL and rounding."""
Say = Callable[[str], None]


@attrs.frozen
class Transfer:
    """One file's way through the network, as measured by the user's clock."""

    name: str
    size_bytes: int
    sha256: str
    file_id: str
    upload_seconds: float
    download_seconds: float

    def as_json(self) -> dict[str, object]:
        return attrs.asdict(self) | {
            "upload_mb_s": self.rate(self.upload_seconds),
            "download_mb_s": self.rate(self.download_seconds),
        }

    def rate(self, seconds: float) -> float:
        """MB/s, of 10^6 bytes."""
        return round(self.size_bytes / 1e6 / max(seconds, 1e-9), 1)


@attrs.frozen
class Sent:
    """A file that was uploaded: where it lies here, and what it was called there."""

    path: Path
    sha256: str
    file: File
    seconds: float


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--nodes", type=click.IntRange(4, 50), default=5, show_default=True, help="Storage nodes (one is killed)."
)
@click.option("--size", default="100MB", show_default=True, help="Size of the random files that are made.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Use this new folder, and leave it.")
@click.option("--keep", is_flag=True, help="Leave the network running until Ctrl-C.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any.")
@json_option
def demo(
    file: Path | None, nodes: int, size: str, data_dir: Path | None, keep: bool, http_port: int, as_json: bool
) -> None:
    """Run a coordinator and storage nodes here, send FILE (or a random one) through them, and kill a node in between.

    Ends with 0 when both files came back bit for bit and the living nodes proved that they hold them.

    \b
    fsn demo
    fsn demo holiday.mp4 --nodes 8
    fsn demo --keep --data-dir ./network
    """

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    with _folder(data_dir) as folder:
        size_bytes = parse_size(size)
        _check_space(folder, size_bytes + (file.stat().st_size if file else size_bytes))
        story = _Story(
            folder, file, size_bytes, nodes, _port(http_port, say), keep, say, folder if data_dir is None else None
        )
        transfers = trio.run(story.run_until_asked)
    if as_json:
        print_json({"transfers": [transfer.as_json() for transfer in transfers]})


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    """The folder for everything: a new one, removed at the end, unless the user names one, which stays."""
    if wanted is not None:
        if (wanted / "coordinator").exists():
            # its nodes know their coordinator by the ports of that run
            raise Conflict(f"{wanted} holds an earlier demo; remove it, or give another --data-dir")
        make_folder(wanted)
        yield wanted.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="fsn-demo-"))
    if os.geteuid() == 0:
        folder.chmod(0o711)  # as root PostgreSQL runs as a system user, who must pass through here
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_space(folder: Path, size_bytes: int) -> None:
    needed, free = size_bytes * _COPIES_OF_ALL, shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"the demo needs {format_size(needed)} in {folder}; {format_size(free)} are free there: "
            "give a smaller --size or another --data-dir"
        )


def _port(wanted: int, say: Say) -> int:
    port = free_port(wanted)
    if port != wanted:
        say(f"Port {wanted} is taken; the coordinator takes any free one.")
    return port


@attrs.frozen
class _Story:
    """What the demo does, in order."""

    folder: Path
    given: Path | None
    size_bytes: int
    node_count: int
    http_port: int
    keep: bool
    say: Say
    remove: Path | None

    async def run_until_asked(self) -> list[Transfer]:
        """The story, ended early by SIGTERM or SIGHUP as by Ctrl-C."""
        async with _ended_by_signals():
            return await self._run()
        raise KeyboardInterrupt

    async def _run(self) -> list[Transfer]:
        async with (
            open_local_network(
                self.folder,
                nodes=self.node_count,
                http_port=self.http_port,
                say=self.say,
                remove=self.remove,
                settings=_SETTINGS,
            ) as network,
            Client(network.url) as client,
        ):
            await self._join(client)
            first = await self._upload(client, await self._first_file())
            self._show_replicas(network)
            second = await self._upload_while_killing(client, network)
            transfers = [await self._fetch(client, sent) for sent in (first, second)]
            self._conclude(transfers)
            await self._show_proofs(client, network)
            await self._show_credits(client, first)
            if self.keep:
                self._show_commands(network, first)
                await trio.sleep_forever()
        return transfers

    async def _join(self, client: Client) -> None:
        """A new user; the password goes to a 0600 file, for who keeps the network."""
        email, password = f"demo-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
        for name, text in (("user.email", email), ("user.password", password)):
            path = self.folder / name
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text + "\n")
        await client.register(email, password)
        session = await client.login(email, password)
        self.say(f"{email} has an account with {session.user.credits} credits.")

    async def _first_file(self) -> Path:
        return self.given if self.given is not None else await self._make_file("first.bin")

    async def _make_file(self, name: str) -> Path:
        path = self.folder / name
        self.say(f"Making {name}: {format_size(self.size_bytes)} of random bytes.")
        await trio.to_thread.run_sync(_write_random, path, self.size_bytes)
        return path

    async def _upload(self, client: Client, path: Path, watch: ShowProgress | None = None) -> Sent:
        sha256 = await trio.to_thread.run_sync(_sha256, path)
        with open_progress(f"up   {path.name}") as bar:
            begin = trio.current_time()
            file = await client.upload(path, progress=_both(bar, watch))
            seconds = trio.current_time() - begin
        self.say(f"Uploaded {path.name} in {seconds:.1f} s; SHA-256 {sha256[:16]}...")
        return Sent(path, sha256, file, seconds)

    def _show_replicas(self, network: LocalNetwork) -> None:
        self.say("Its sealed replicas, counted on the nodes' disks:")
        for node in network.nodes:
            sizes = node.replicas()
            self.say(f"  {node.name:8} {len(sizes):6} replicas  {format_size(sum(sizes)):>10}")

    async def _upload_while_killing(self, client: Client, network: LocalNetwork) -> Sent:
        path = await self._make_file("second.bin")
        victim = max(network.nodes, key=lambda node: len(node.replicas()))
        return await self._upload(client, path, killing_half_way(victim, self.say))

    async def _fetch(self, client: Client, sent: Sent) -> Transfer:
        """Download to the disk and compare; Corrupt when not a bit for bit copy."""
        copy = self.folder / f"copy-of-{sent.path.name}"
        with open_progress(f"down {sent.path.name}") as bar:
            begin = trio.current_time()
            await client.download(sent.file.id, copy, progress=bar)
            seconds = trio.current_time() - begin
        found = await trio.to_thread.run_sync(_sha256, copy)
        if found != sent.sha256:
            raise Corrupt(f"{sent.path.name} went up with SHA-256 {sent.sha256} and came back with {found}")
        size = copy.stat().st_size
        return Transfer(sent.path.name, size, found, str(sent.file.id), sent.seconds, seconds)

    def _conclude(self, transfers: list[Transfer]) -> None:
        self.say("Both files came back bit for bit, with a node dead:")
        for each in transfers:
            rates = f"up {each.rate(each.upload_seconds)} MB/s, down {each.rate(each.download_seconds)} MB/s"
            self.say(f"  {each.name:12} {format_size(each.size_bytes):>10}  {rates}  SHA-256 {each.sha256}")

    async def _show_proofs(self, client: Client, network: LocalNetwork) -> None:
        """What the coordinator has on record of each node, once the living ones that hold something have proved it."""
        killed = {node.name for node in network.nodes if node.process.poll() is not None}
        names = {node.name for node in network.nodes if node.name not in killed and node.replicas()}
        self.say("Waiting for proofs of storage (a round takes 36 s here, 4 hours elsewhere) ...")
        with trio.move_on_after(_PROOFS_SECONDS):
            while True:
                proofs = await _proofs(client)
                if all(proofs[name]["passed"] for name in names):
                    break
                await trio.sleep(1)
        proofs = await _proofs(client)
        for name, sums in sorted(proofs.items()):
            counts = ", ".join(f"{count} {word}" for word, count in sums.items())
            self.say(f"  {name:8} {counts}{'  (killed: who cannot be asked is not blamed)' if name in killed else ''}")
        if late := [name for name in names if not proofs[name]["passed"]]:
            raise PeerTimeout(f"no proof of {', '.join(sorted(late))} within {_PROOFS_SECONDS:.0f} s")

    async def _show_credits(self, client: Client, first: Sent) -> None:
        cost = (await client.quote(first.file.size_bytes or 0)).cost
        left = (await client.balance()).balance
        self.say(
            f"Storing {first.path.name} costs {cost:.2f} credits for 30 days; the user has {left:.2f} left after both files."
        )

    def _show_commands(self, network: LocalNetwork, first: Sent) -> None:
        email = (self.folder / "user.email").read_text().strip()
        called, quoted = shlex.quote(program("fsn")), shlex.quote(str(self.folder))
        self.say(
            _COMMANDS.format(
                url=network.url, folder=self.folder, quoted=quoted, email=email, file=first.file.id, fsn=called
            )
        )
        for daemon in (network.coordinator, *network.nodes):
            ports = ", ".join(f"{name} {port}" for name, port in daemon.ports.items() if port)
            self.say(f"  {daemon.name:12} {'running' if daemon.process.poll() is None else 'killed':8} {ports}")
        self.say("\nCtrl-C ends everything.")


_COMMANDS = """
The network goes on at {url}; everything is in {folder}. To try:

  curl {url}/health
  curl {url}/api/v1/nodes
  curl -X POST {url}/api/v1/auth/register -d '{{"email":"test@example.com","password":"test123"}}'
  curl -X POST {url}/api/v1/auth/login -d '{{"email":"test@example.com","password":"test123"}}'
  curl -X POST {url}/api/v1/files/upload/initiate -H "Authorization: Bearer <token>" \\
       -d '{{"filename":"test.txt","size_bytes":1024}}'
  curl {url}/api/v1/files/{file}/download -H "Authorization: Bearer <token>" -o copy

  {fsn} login {email} --url {url} --password-file {quoted}/user.password
  {fsn} ls --url {url}
  {fsn} node chunks list --data-dir {quoted}/node-1
"""


async def _proofs(client: Client) -> dict[str, dict[str, int]]:
    """Passed, failed and missed proofs of each node, by its name, the round that is under way included."""
    found = {}
    async for node in client.nodes():
        rounds = await client.proof_rounds(node.id)
        found[node.name] = {
            word: sum(getattr(each, word) for each in rounds) for word in ("passed", "failed", "missed")
        }
    return found


def _both(bar: ShowProgress | None, watch: ShowProgress | None) -> ShowProgress:
    def tell(done: int, total: int | None) -> None:
        for told in (bar, watch):
            if told is not None:
                told(done, total)

    return tell


def killing_half_way(victim: Daemon, say: Say) -> ShowProgress:
    """Progress of an upload at whose middle `victim` is killed, once: it takes a moment until a killed process has ended."""
    alive = [victim]

    def watch(done: int, total: int | None) -> None:
        if alive and total is not None and done >= total / 2:
            alive.pop().kill()
            say(f"Half of it is sent: {victim.name}, which held the most, is killed with -9.")

    return watch


def _write_random(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for offset in range(0, size_bytes, _BLOCK_BYTES):
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - offset)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@asynccontextmanager
async def _ended_by_signals() -> AsyncIterator[None]:
    """The block is cancelled by SIGTERM or SIGHUP, and what stands after it runs."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            yield
            nursery.cancel_scope.cancel()
