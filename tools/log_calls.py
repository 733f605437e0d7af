"""Every call in the source that writes a log line: its word, level and members, by walking the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["LogCall", "log_calls"]

SOURCES = Path(__file__).parents[1] / "src" / "fsn"
LOGGERS = ("log", "_log")
LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}


@attrs.frozen(order=True)
class LogCall:
    """One `log.info("word", member=...)`. `place` is the module's path below src/fsn."""

    word: str
    place: str
    levels: tuple[str, ...]
    members: tuple[str, ...]


def log_calls() -> Iterator[LogCall]:
    """In the order of their places. Raises AssertionError for a call whose first argument is no constant word."""
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (levels := _levels(node)):
                yield _call(node, levels, path.relative_to(SOURCES).as_posix())


def _levels(node: ast.Call) -> tuple[str, ...]:
    """The levels at which the call logs; empty when it is none on a logger."""
    function = node.func
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return ()
    if function.value.id not in LOGGERS:
        return ()
    if function.attr == "log":  # log.log(logging.ERROR if ... else logging.DEBUG, "word")
        named = [part.attr.lower() for part in ast.walk(node.args[0]) if isinstance(part, ast.Attribute)]
        return tuple(sorted(named, key=list(LEVELS).index))
    return (LEVELS[function.attr],) if function.attr in LEVELS else ()


def _call(node: ast.Call, levels: tuple[str, ...], place: str) -> LogCall:
    words = [given.value for given in node.args if isinstance(given, ast.Constant) and isinstance(given.value, str)]
    assert len(words) == 1, f"{place}:{node.lineno} logs no constant word"
    members = tuple(
        keyword.arg if keyword.arg is not None else "..." for keyword in node.keywords if keyword.arg != "exc_info"
    )
    return LogCall(words[0], place, levels, members)
