"""A user of the network on a host of the lab, who has nothing but the command line."""

import itertools
import json
import os
from pathlib import Path

import attrs
import trio

from scenarios.netlab.daemons import FsnFailed, environment, fsn, run_fsn
from scenarios.netlab.hosts import Host
from scenarios.netlab.processes import Process

__all__ = ["Stored", "Upload", "User"]

_PASSWORD = "lab-secret"


@attrs.frozen(eq=False)
class Stored:
    """A file that the network has taken."""

    file_id: str
    data: bytes


@attrs.frozen(eq=False)
class Upload:
    """A `fsn put` that is under way."""

    process: Process
    data: bytes

    async def stored(self) -> Stored:
        """Wait for its end. Raises FsnFailed when it was refused or broke."""
        if code := await self.process.wait():
            raise FsnFailed("put", code, self.process.log_tail())
        return Stored(json.loads(self.process.said())["files"][0]["id"], self.data)


class User:
    """Somebody with an account; `url` is where the coordinator is for this user, and may be changed."""

    def __init__(self, host: Host, url: str) -> None:
        self.host, self.url = host, url
        self._numbers = itertools.count(1)

    async def register(self) -> None:
        """Make the account and log in."""
        await self._fsn("register", f"{self.host.name}@example.com")

    async def login(self) -> None:
        """Log in again, e.g. at another URL."""
        await self._fsn("login", f"{self.host.name}@example.com")

    async def put(self, size_bytes: int, *, replicas: int) -> Stored:
        """Store a file of random bytes. Raises FsnFailed."""
        return await (await self.start_put(size_bytes, replicas=replicas)).stored()

    async def start_put(self, size_bytes: int, *, replicas: int) -> Upload:
        """Begin to store a file of random bytes."""
        path, data = await trio.to_thread.run_sync(self._write, size_bytes)
        command = fsn("put", "--json", "--replicas", str(replicas), str(path))
        return Upload(await self.host.spawn(f"put-{path.name}", *command, environment=self._environment()), data)

    async def check(self, stored: Stored) -> None:
        """Read a file back; AssertionError unless it comes bit for bit, FsnFailed when it does not come."""
        path = self.host.folder / f"got-{stored.file_id}"
        await self._fsn("get", stored.file_id, "-o", str(path), "--force")
        got = await trio.to_thread.run_sync(path.read_bytes)
        assert got == stored.data, f"{len(got)} bytes came back, and not those {len(stored.data)} that were stored"

    async def _fsn(self, word: str, *arguments: str) -> str:
        return await run_fsn(self.host, word, word, *arguments, **self._account())

    def _environment(self) -> dict[str, str]:
        return environment(**self._account())

    def _account(self) -> dict[str, str]:
        # The password is this lab's alone.
        return {"FSN_URL": self.url, "FSN_PASSWORD": _PASSWORD, "XDG_CONFIG_HOME": str(self.host.folder)}

    def _write(self, size_bytes: int) -> tuple[Path, bytes]:
        self.host.folder.mkdir(mode=0o711, exist_ok=True)
        path, data = self.host.folder / f"file-{next(self._numbers)}", os.urandom(size_bytes)
        path.write_bytes(data)
        return path, data
