"""A user of the network on a host of the lab, who has nothing but the command line."""

import json
from pathlib import Path

import attrs
import trio

from scenarios.netlab.daemons import FsnFailed, environment, fsn, run_fsn
from scenarios.netlab.hosts import Host
from scenarios.netlab.processes import Process

__all__ = ["Upload", "User"]

_PASSWORD = "lab-secret"


@attrs.frozen(eq=False)
class Upload:
    """A `fsn put` that is under way."""

    process: Process

    async def file_id(self) -> str:
        """Wait for its end. Raises FsnFailed when it was refused or broke."""
        if code := await self.process.wait():
            raise FsnFailed("put", code, self.process.log_tail())
        return str(json.loads(self.process.said())["files"][0]["id"])


class User:
    """Somebody with an account; `url` is where the coordinator is for this user, and may be changed."""

    def __init__(self, host: Host, url: str) -> None:
        self.host, self.url = host, url

    async def register(self) -> None:
        """Make the account and log in."""
        await self._fsn("register", f"{self.host.name}@example.com")

    async def login(self) -> None:
        """Log in again, e.g. at another URL."""
        await self._fsn("login", f"{self.host.name}@example.com")

    async def put(self, data: bytes, *, replicas: int, name: str = "file") -> str:
        """Store a file; its id. Raises FsnFailed."""
        return await (await self.start_put(data, replicas=replicas, name=name)).file_id()

    async def start_put(self, data: bytes, *, replicas: int, name: str = "file") -> Upload:
        """Begin to store a file."""
        path = await trio.to_thread.run_sync(self._write, name, data)
        command = fsn("put", "--json", "--replicas", str(replicas), str(path))
        return Upload(await self.host.spawn(f"put-{name}", *command, environment=self._environment()))

    async def get(self, file_id: str) -> bytes:
        """Read a file back. Raises FsnFailed."""
        path = self.host.folder / f"got-{file_id}"
        await self._fsn("get", file_id, "-o", str(path), "--force")
        return await trio.to_thread.run_sync(path.read_bytes)

    async def _fsn(self, word: str, *arguments: str) -> str:
        return await run_fsn(self.host, word, word, *arguments, **self._account())

    def _environment(self) -> dict[str, str]:
        return environment(**self._account())

    def _account(self) -> dict[str, str]:
        # The password is this lab's alone.
        return {"FSN_URL": self.url, "FSN_PASSWORD": _PASSWORD, "XDG_CONFIG_HOME": str(self.host.folder)}

    def _write(self, name: str, data: bytes) -> Path:
        self.host.folder.mkdir(mode=0o711, exist_ok=True)
        path = self.host.folder / name
        path.write_bytes(data)
        return path
