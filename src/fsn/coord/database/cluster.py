"""Making a PostgreSQL cluster that is private to its data folder: initdb, access rules, settings, the socket's folder."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fsn.coord.database.binaries import Binaries
from fsn.coord.database.server_user import ServerUser, text_of
from fsn.core.errors import ConfigError, Unavailable

__all__ = ["ROLE", "make_cluster", "make_socket_folder", "write_settings"]

ROLE: Final = "fsn"
_SOCKET_PATH_BYTES: Final = 102  # sockaddr_un holds 104 bytes on macOS, 108 on Linux, the final NUL included

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "client_connection_check_interval": "5s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "logging_collector": "on",
    "log_filename": "'pg-%a.log'",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
}


def make_cluster(folder: Path, data: Path, binaries: Binaries, user: ServerUser) -> None:
    """Run initdb in a folder beside `data` and rename it: after a kill the cluster is there whole or not at all.

    Only `user` (and root) can log in, by the socket alone. Raises Unavailable when initdb fails.
    """
    for broken_off in folder.glob("initdb-*"):
        shutil.rmtree(broken_off, ignore_errors=True)  # an initdb that outlived its killed parent may still write there
    part = Path(tempfile.mkdtemp(prefix="initdb-", dir=folder))
    user.own(part)
    # The C locale: an upgrade of the operating system must not change the order of an index. Checksums: default since 18 only.
    options = ("--no-locale", "--encoding=UTF8", "--data-checksums", "--auth-local=peer", "--auth-host=reject")
    with tempfile.TemporaryFile() as output:
        if user.run(binaries.folder / "initdb", "-D", part, "-U", ROLE, *options, output=output):
            raise Unavailable(f"initdb failed: {text_of(output)}")
    user.write(part / "pg_hba.conf", "local all all peer map=fsn\n")
    with (part / "postgresql.conf").open("a") as settings:
        settings.write("\ninclude_if_exists = 'fsn.conf'\n")
    part.rename(data)


def make_socket_folder(folder: Path, user: ServerUser) -> Path:
    """A private folder for the socket: in the data folder, or in /tmp when that path is too long for a socket.

    Raises ConfigError when somebody else was there first.
    """
    place = folder / "sock"
    if len(os.fsencode(place / ".s.PGSQL.5432")) > _SOCKET_PATH_BYTES:
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        place = Path(f"/tmp/fsn-pg-{user.uid}-{digest}")  # noqa: S108 - made 0700, and its owner is checked
    if not place.exists():
        place.mkdir(mode=0o700)
        user.own(place)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077 or found.st_uid != user.uid:
        raise ConfigError(f"{place} must be a folder that only {user.name} can enter; somebody else made it")
    return place


def write_settings(data: Path, socket_folder: Path, settings: Mapping[str, str], user: ServerUser) -> None:
    """Write our settings (ours, then the caller's over them) and who may log in; read by the server when it starts next."""
    ours = {**_SETTINGS, "unix_socket_directories": f"'{socket_folder}'", **settings}
    lines = [f"{name} = {value}\n" for name, value in ours.items()]
    user.write(data / "fsn.conf", "# written at every start; your own settings: postgresql.conf\n" + "".join(lines))
    user.write(data / "pg_ident.conf", "".join(f"fsn {login} {ROLE}\n" for login in user.logins))
