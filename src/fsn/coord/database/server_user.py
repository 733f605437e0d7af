"""The operating system's user that an embedded PostgreSQL runs as: PostgreSQL refuses root, so root lends it another."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import IO, Any, Final

import attrs

from fsn.core.errors import ConfigError

__all__ = ["ServerUser", "server_user", "text_of"]

_USER_FOR_ROOT: Final = "fsnpg"


@attrs.frozen
class ServerUser:
    """Who the server runs as, and who may log in to it."""

    uid: int
    gid: int
    name: str
    is_lent: bool
    """Whether we are root, and switch to this user for everything that the server's programs do."""

    @property
    def logins(self) -> tuple[str, ...]:
        """The users of this machine that peer authentication lets in as the database role."""
        return (self.name, "root") if self.is_lent else (self.name,)

    def run(self, *command: str | Path, output: IO[bytes] | int = subprocess.DEVNULL) -> int:
        """Run a program as this user, in /, in the C locale, without our PG* variables; its exit code."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return subprocess.run(
            command,
            cwd="/",
            env={**environment, "LC_ALL": "C"},
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **self._switch(),
        ).returncode

    def reaches(self, path: Path) -> bool:
        """Whether this user can enter (or execute) `path`."""
        return not self.is_lent or self.run("test", "-x", path) == 0

    def own(self, path: Path) -> None:
        """Give `path`, made by us, to this user; never through a symbolic link."""
        if self.is_lent:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def write(self, path: Path, text: str) -> None:
        """Write a file of the server's; never through a symbolic link, which a broken-into server could have put there for root."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if self.is_lent:
                os.fchown(descriptor, self.uid, self.gid)
            file.write(text)

    def _switch(self) -> dict[str, Any]:
        # group and extra_groups too: user= alone leaves the server in root's groups
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_lent else {}


def server_user(run_as: str | None = None) -> ServerUser:
    """Ourselves; as root the user `run_as`, or else a system user without login named fsnpg, made when it is missing.

    Raises ConfigError when there is no such user, or none can be made.
    """
    if os.geteuid() != 0:
        return _named(_own_name(), is_lent=False)
    try:
        return _named(run_as or _USER_FOR_ROOT, is_lent=True)
    except KeyError:
        if run_as is not None:
            raise ConfigError(f"there is no user {run_as!r} to run PostgreSQL as") from None
    _make_user(_USER_FOR_ROOT)
    return _named(_USER_FOR_ROOT, is_lent=True)


def _named(name: str, *, is_lent: bool) -> ServerUser:
    entry = pwd.getpwnam(name)
    return ServerUser(uid=entry.pw_uid, gid=entry.pw_gid, name=name, is_lent=is_lent)


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # e.g. docker run --user 1234: initdb "could not look up effective user ID"
        raise ConfigError(
            f"user id {os.geteuid()} has no entry in the system's user list, which PostgreSQL needs: add one, or give a DSN"
        ) from None


def _make_user(name: str) -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    try:
        made = subprocess.run([*command, "--shell", "/usr/sbin/nologin", name], capture_output=True, text=True)
        trouble = "" if made.returncode in (0, 9) else made.stderr.strip()  # 9: another process has just made it
    except OSError as error:
        trouble = str(error)
    if trouble:
        raise ConfigError(
            f"PostgreSQL does not run as root, and the user {name} could not be made ({trouble}): name a user (run_as), run fsn as an"
            " ordinary user, or give a DSN"
        )


def text_of(output: IO[bytes]) -> str:
    """What a program wrote into the temporary file `output`."""
    output.seek(0)
    return output.read().decode(errors="replace").strip()
