"""What this node means to do (to store, to be away, to leave, or that it has left), in a small file that survives a power cut."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

import attrs

from fsn.core.errors import ConfigError
from fsn.node.chunkstore.files import Files, disk_errors, read_errors

__all__ = ["ACTIVE", "STANDING_NAME", "NodeStanding", "StandingFile", "StandingKind"]

STANDING_NAME: Final = "standing.json"
"""In the data folder. Not in the chunk index: that one is made anew from the chunks when it is damaged, and would have forgotten."""

StandingKind = Literal["active", "draining", "maintenance", "left"]

_LONGEST_BYTES: Final = 4096


@attrs.frozen
class NodeStanding:
    """A kind, since when, until when (a maintenance's end, a drain's deadline; None = without), and the operator's reason.

    Of a drain also the replicas that lay here when it began, and their bytes.
    """

    kind: StandingKind
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""
    replicas: int = 0
    size_bytes: int = 0

    @property
    def takes_chunks(self) -> bool:
        """Whether new chunks are stored."""
        return self.kind in ("active", "maintenance")


ACTIVE: Final = NodeStanding("active")
"""Of a node that has never declared anything."""


class StandingFile:
    """The file. One task at a time writes it."""

    def __init__(self, data_dir: Path, files: Files | None = None) -> None:
        self._path = data_dir / STANDING_NAME
        self._files = files or Files()

    def load(self) -> NodeStanding:
        """What was saved last, `ACTIVE` when nothing was.

        Raises ConfigError for a file that is not as `save` writes it: guessing would give chunks to a node that has left.
        """
        with read_errors(self._path):
            if self._files.size(self._path) is None:
                return ACTIVE
            content = self._files.read(self._path, 0, _LONGEST_BYTES)
        try:
            return _standing(json.loads(content))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path} cannot be read ({error}); if this node is neither draining nor has left, remove the file"
            ) from error

    def save(self, standing: NodeStanding) -> None:
        """Durable on return; after a power cut the old or the new is there, whole. Raises `StorageError`, `DiskFull`."""
        part = self._path.with_name(f".{STANDING_NAME}.part")
        with disk_errors(self._path):
            try:
                self._files.write(part, json.dumps(_document(standing)).encode() + b"\n")
                self._files.sync(part)
                self._files.rename(part, self._path)
                self._files.sync_folder(self._path.parent)
            except BaseException:
                self._files.remove(part)
                raise


def _document(standing: NodeStanding) -> dict[str, Any]:
    return {
        "standing": standing.kind,
        "since": standing.since.isoformat() if standing.since else None,
        "until": standing.until.isoformat() if standing.until else None,
        "reason": standing.reason,
        "replicas": standing.replicas,
        "size_bytes": standing.size_bytes,
    }


def _standing(document: Any) -> NodeStanding:
    if document["standing"] not in get_args(StandingKind):
        raise ValueError(f"standing must be one of {', '.join(get_args(StandingKind))}; found {document['standing']!r}")
    return NodeStanding(
        document["standing"],
        _time(document["since"]),
        _time(document["until"]),
        str(document["reason"]),
        int(document.get("replicas", 0)),
        int(document.get("size_bytes", 0)),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
