"""The user's token for each coordinator, in one 0600 file under the user's own configuration folder."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import platformdirs

from fsn.client import Session
from fsn.core.errors import ConfigError

__all__ = ["Credentials", "default_credentials"]


@attrs.frozen
class Credentials:
    """Tokens by server URL, in the file `path`. Losing it costs a login; the password is never in it."""

    path: Path

    def token(self, url: str) -> str | None:
        """The token kept for `url`; None when there is none. ConfigError when others could read the file, or it is damaged."""
        servers = self._read()
        return servers[url]["token"] if url in servers else None

    def keep(self, url: str, session: Session) -> None:
        """Keep a login. When it returns, the file is whole with it, or (after a crash) whole without."""
        entry = {"token": session.token, "email": session.user.email, "expires_at": session.expires_at.isoformat()}
        self._write(self._read() | {url: entry})

    def forget(self, url: str) -> None:
        """Forget a login; harmless when there is none."""
        servers = self._read()
        if servers.pop(url, None) is not None:
            self._write(servers)

    def _read(self) -> dict[str, Any]:
        try:
            mode = self.path.stat().st_mode
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror}") from error
        if mode & 0o077:
            raise ConfigError(f"others can read {self.path}, which holds tokens; do `chmod 600 {self.path}`")
        return self._parsed(text)

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            servers = json.loads(text)["servers"]
            if all(isinstance(entry["token"], str) for entry in servers.values()):
                return dict(servers)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise ConfigError(f"{self.path} is damaged; remove it and log in again")

    def _write(self, servers: dict[str, Any]) -> None:
        new = self.path.with_name(f"{self.path.name}.{uuid4().hex}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({"servers": servers}, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise ConfigError(f"cannot keep the login in {self.path}: {error.strerror}") from error


def default_credentials() -> Credentials:
    """Where this user's are: `$XDG_CONFIG_HOME/fsn/credentials.json` on Linux."""
    return Credentials(platformdirs.user_config_path("fsn") / "credentials.json")
