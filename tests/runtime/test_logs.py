"""Logs: where they go, how they look, and what is never in them."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
import structlog

from fsn.coord.accounts import Account, Login
from fsn.coord.catalog import ChunkRecord, PlacedReplica, StoredFile, Upload, User
from fsn.coord.database.nodes import Registration
from fsn.coord.keyring import WrappedKey
from fsn.coord.registration import Registered
from fsn.coord.secrets import MasterKeys
from fsn.coord.services import Secrets
from fsn.core.ids import ChunkId, FileId, NodeId, PeerId, ReplicaId, UploadId, UserId
from fsn.core.keys import FileKey
from fsn.core.sealing import SealedReplica
from fsn.core.units import MicroCredits
from fsn.p2p.wire.messages import ChunkRetrieved, StoreChunk
from fsn.runtime.identity import Identity
from fsn.runtime.logs import LogConfig, configure_logs

SECRET = "hush-9f8e7d6c5b4a"
SECRET_BYTES = b"hush" * 8
NOW = datetime(2030, 1, 1, tzinfo=UTC)
ID = UUID(int=7)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Give pytest its handlers and structlog its defaults back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # pytest's own must not be closed
    levels = {name: logging.getLogger(name).level for name in ("libp2p", "hypercorn", "httpx", "httpcore", "quart")}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def fail(password: str) -> None:
    """Raise with a secret among the local variables."""
    key = password.upper()
    raise ValueError(f"{len(key)} is too short")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged as JSON."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An event is a JSON object with level and UTC time, on stderr, whatever objects it names."""
    configure_logs(LogConfig(format="json"))
    structlog.get_logger().info("chunk_stored", chunk=ID, name="line\nend")
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    event = json.loads(line)
    assert event["event"] == "chunk_stored"
    assert event["level"] == "info"
    assert event["chunk"] == str(ID)
    assert event["name"] == "line\nend"
    assert event["timestamp"].endswith("Z")


def test_what_libraries_log_goes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard library's records become lines of the same form."""
    configure_logs(LogConfig(format="json"))
    logging.getLogger("some.library").warning("it is %s", "odd")
    [event] = lines(capsys)
    assert (event["event"], event["level"]) == ("it is odd", "warning")


def test_auto_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal the format is JSON."""
    configure_logs(LogConfig())
    structlog.get_logger().info("hello")
    assert lines(capsys)[0]["event"] == "hello"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_only_what_is_severe_enough_is_shown(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """The level is the least severe that appears, for us and for libraries, noisy ones included."""
    configure_logs(LogConfig(level=level, format="json"))  # type: ignore[arg-type]
    order = ["debug", "info", "warning", "error"]
    for severity in order:
        getattr(structlog.get_logger(), severity)("ours")
        getattr(logging.getLogger("library"), severity)("theirs")
        getattr(logging.getLogger("libp2p"), severity)("noise")
    shown = [(line["event"], line["level"]) for line in lines(capsys)]
    wanted = order[order.index(level) :]
    assert [severity for event, severity in shown if event == "ours"] == wanted
    assert [severity for event, severity in shown if event == "theirs"] == wanted
    assert [severity for event, severity in shown if event == "noise"] == [
        s for s in wanted if s in ("warning", "error")
    ]


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The second configuration replaces the first."""
    configure_logs(LogConfig(format="console"))
    configure_logs(LogConfig(format="json"))
    structlog.get_logger().warning("ours")
    logging.getLogger("library").warning("theirs")
    assert [line["event"] for line in lines(capsys)] == ["ours", "theirs"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_tells_no_values_of_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """A logged exception shows where and what, never what the variables on the way held: a key, a password."""
    configure_logs(LogConfig(format=form))  # type: ignore[arg-type]
    try:
        fail(SECRET)
    except ValueError as error:
        structlog.get_logger().exception("handler_failed")
        structlog.get_logger().warning("worker_failed", exc_info=error)
        logging.getLogger("library").exception("failed")
    told = capsys.readouterr().err
    assert told.count("is too short") >= 3
    assert "fail" in told
    assert SECRET not in told
    assert SECRET.upper() not in told


@pytest.mark.parametrize("form", ["json", "console"])
def test_groups_of_exceptions_are_logged_with_their_members(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """What went wrong inside a nursery stands in the log."""
    configure_logs(LogConfig(format=form))  # type: ignore[arg-type]
    try:
        raise ExceptionGroup("nursery", [ValueError("the one"), OSError("the other")])
    except ExceptionGroup:
        structlog.get_logger().exception("failed")
    told = capsys.readouterr().err
    assert "the one" in told
    assert "the other" in told


USER = User(UserId(ID), "a@example.com", SECRET, NOW)
FILE = StoredFile(
    FileId(ID), UserId(ID), SECRET, 1, 1, 1, "ready", "id", SECRET_BYTES, SECRET_BYTES, NOW, None
)  # fmt: skip
REPLICA = PlacedReplica(ReplicaId(ID), 0, NodeId(ID), SECRET_BYTES, 17)


@pytest.mark.parametrize(
    "value",
    [
        USER,
        FILE,
        Upload(UploadId(ID), FILE, FileKey(SECRET_BYTES), "open", NOW),
        WrappedKey(FileKey(SECRET_BYTES), "id", SECRET_BYTES, SECRET_BYTES),
        MasterKeys("id", {"id": SECRET_BYTES}),
        Secrets(MasterKeys("id", {"id": SECRET_BYTES}), SECRET_BYTES),
        Identity(SECRET_BYTES),
        Login(SECRET, NOW, Account(USER, MicroCredits(1))),
        Registered(NodeId(ID), SECRET),
        Registration(NodeId(ID), PeerId("p"), b"k", "n", 1, None, None, SECRET_BYTES, NOW, NOW, PeerId("c")),
        ChunkRecord(FileId(ID), 0, ChunkId(ID), 1, SECRET_BYTES, (REPLICA,)),
        StoreChunk(ReplicaId(ID), bytes(32), SECRET_BYTES),
        ChunkRetrieved(SECRET_BYTES, 32),
        SealedReplica(ReplicaId(ID), bytes(32), SECRET_BYTES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_secret_does_not_show_it(capsys: pytest.CaptureFixture[str], value: object) -> None:
    """Keys, tokens, hashes of passwords, file names and users' bytes are in no repr and in no log line."""
    configure_logs(LogConfig(format="json"))
    structlog.get_logger().info("seen", value=value)
    told = capsys.readouterr().err + repr(value) + str(value)
    assert "hush" not in told
    assert SECRET_BYTES.hex() not in told
