"""The rules of ARCHITECTURE.md that import-linter cannot state: the five doors, what is banned, where `except Exception` may stand."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

DOORS = {
    "libp2p": ("fsn/p2p/transport/",),
    "aioquic": ("fsn/p2p/transport/",),
    "psycopg": ("fsn/coord/database/",),
    "quart": ("fsn/web/",),
    "quart_trio": ("fsn/web/",),
    "hypercorn": ("fsn/web/",),
    "google.protobuf": (
        "fsn/p2p/wire/codec.py",
        "fsn/p2p/wire/storage_pb2.py",
        "fsn/p2p/wire/discovery_codec.py",
        "fsn/p2p/wire/discovery_pb2.py",
    ),
    "fsn.p2p.wire.storage_pb2": ("fsn/p2p/wire/codec.py",),
    "fsn.p2p.wire.discovery_pb2": ("fsn/p2p/wire/discovery_codec.py",),
    "sqlite3": ("fsn/node/chunkstore/",),
    "httpx": ("fsn/client/",),
    "stripe": ("fsn/coord/payments/stripe_checkout.py",),
    "click": ("fsn/cli/",),
}
"""A foreign library, and the only places that import it: its exceptions and types are translated there, and nowhere else."""

BANNED = ("asyncio", "anyio", "trio_asyncio", "sniffio", "concurrent.futures", "unittest.mock", "mock")
"""One way to wait and one way to be cancelled: trio's. And no mocks."""

USES_BANNED = {
    (
        "asyncio",
        "fsn/coord/database/asyncio_driver.py",
    ): "the second driver runs psycopg's asyncio half (decision 0003)",
    (
        "trio_asyncio",
        "fsn/coord/database/asyncio_driver.py",
    ): "by which it does so; imported only when it is configured",
}
"""Where a banned module may be used, with the reason."""

BROAD_HANDLERS = {
    (
        "fsn/p2p/server.py",
        "_handle",
    ): "barrier of one request: a handler's bug becomes a refusal, and the stream lives on",
    ("fsn/p2p/transport/serving.py", "run_handler"): "barrier of one stream: a handler's bug costs its own stream",
    (
        "fsn/p2p/transport/hardening.py",
        "guarded",
    ): "the same for streams that py-libp2p itself serves (decision 0004, B1, B2)",
    (
        "fsn/p2p/transport/libp2p.py",
        "on_connection",
    ): "barrier of one connection: a stranger's bytes must not end the listener",
    (
        "fsn/p2p/transport/probing.py",
        "probe_tcp",
    ): "no barrier: what a stranger's bytes make py-libp2p raise is the result that was asked for",
    ("fsn/p2p/transport/libp2p.py", "on_quic_connection"): "the same, for one that came by QUIC",
    (
        "fsn/p2p/transport/quic_connection.py",
        "_guarded",
    ): "barrier of one QUIC connection: what its packets make aioquic raise costs that connection",
    ("fsn/web/front/serve.py", "_connect"): "barrier of one HTTP connection: the same, in front of the web",
    (
        "fsn/web/object_response.py",
        "_run",
    ): "no barrier: the error is handed whole to the task that answers, which raises it",
    ("fsn/runtime/supervise.py", "supervise"): "the supervisor: a worker's failure becomes a back-off",
}
"""Where `except Exception` may swallow: the barriers, and the supervisor. Elsewhere it must raise on."""

CANCELLED_HANDLERS = {
    (
        "fsn/coord/database/driver.py",
        "_run_to_the_end",
    ): "psycopg's clean-up must run; trio raises it again (decision 0003)",
    ("fsn/coord/database/asyncio_driver.py", "run_to_the_end"): "the same in the second driver",
}
"""Where `trio.Cancelled` may be caught without being raised on."""

PURE_CORE = ("trio", "os", "time", "random", "logging", "secrets", "socket", "pathlib", "structlog", "datetime")


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of ours by its path below src/."""
    paths = sorted(SOURCE.rglob("*.py"))
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported anywhere in a module; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, package: str) -> bool:
    """Whether `name` is `package` or something in it."""
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_is_imported_at_its_door_only(library: str) -> None:
    """Nobody else imports it; and the door does, or the rule has gone stale."""
    users = {path for path, tree in trees().items() if any(is_below(name, library) for name in imports(tree))}
    strangers = {path for path in users if not path.startswith(DOORS[library])}
    assert strangers == set(), f"{library} belongs to {' and '.join(DOORS[library])}"
    assert users, f"nobody imports {library}"


@pytest.mark.parametrize("banned", BANNED)
def test_a_banned_module_is_not_imported(banned: str) -> None:
    """Nobody imports it, except where a reason is on record."""
    users = {path for path, tree in trees().items() if any(is_below(name, banned) for name in imports(tree))}
    assert users == {path for module, path in USES_BANNED if module == banned}


def test_no_task_escapes_its_nursery() -> None:
    """`spawn_system_task` is used nowhere."""
    found = {
        path
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if "spawn_system_task" in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", None))
    }
    assert found == set()


def test_core_is_pure() -> None:
    """The rules import nothing that waits, asks the time, rolls dice, logs, or knows the operating system."""
    found = {
        (path, name)
        for path, tree in trees().items()
        if path.startswith("fsn/core/")
        for name in imports(tree)
        if any(is_below(name, impure) for impure in PURE_CORE)
    }
    assert found == set()


def test_except_exception_has_its_homes() -> None:
    """A broad handler raises on, or is one of those named with a reason; and each of these is still there."""
    assert swallowing(is_broad) == set(BROAD_HANDLERS)


def test_cancelled_is_never_swallowed() -> None:
    """A handler that names `trio.Cancelled` raises it on, or is named with a reason."""
    assert swallowing(is_for_cancelled) == set(CANCELLED_HANDLERS)


def test_every_module_says_what_lives_there() -> None:
    """Each module that has code has a docstring."""
    assert [path for path, tree in trees().items() if tree.body and not ast.get_docstring(tree) and is_ours(path)] == []


def handlers(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Every `except`, with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            yield function, node
        inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from handlers(node, inner)


def swallowing(is_meant: Callable[[ast.ExceptHandler], bool]) -> set[tuple[str, str]]:
    """Path and function of every handler meant that does not end by raising."""
    return {
        (path, function)
        for path, tree in trees().items()
        for function, handler in handlers(tree)
        if is_meant(handler) and not isinstance(handler.body[-1], ast.Raise)
    }


def is_for_cancelled(handler: ast.ExceptHandler) -> bool:
    """Whether it names trio.Cancelled."""
    return handler.type is not None and "Cancelled" in ast.unparse(handler.type)


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything: bare, Exception or BaseException, alone or among others."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)


def is_ours(path: str) -> bool:
    """Not generated, and not one of the empty-but-for-a-docstring packages."""
    return not path.endswith(("_pb2.py", "__init__.py"))
