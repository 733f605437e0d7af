"""Configuration: frozen attrs classes filled from TOML, then the environment, then flags. Every mistake is reported, by its key."""

import tomllib
import types
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.v import transform_error

from fsn.core.errors import ConfigError, FsnError
from fsn.core.units import parse_size

__all__ = ["ByteSize", "Setting", "config_as_toml", "load_config", "settings"]

ByteSize = NewType("ByteSize", int)
"""A number of bytes; in a file it may be written as a number or as text, e.g. "10GB" or "512MiB"."""

ENVIRONMENT_PREFIX = "FSN_"
T = TypeVar("T")
_FACTORY: Any = type(attrs.Factory(list))


@attrs.frozen
class Setting:
    """One leaf of a configuration: its dotted key, its type and its default (attrs.NOTHING when it must be given)."""

    key: str
    type: Any
    default: Any

    @property
    def environment_variable(self) -> str:
        """E.g. `FSN_HTTP__PORT` for `http.port`."""
        return ENVIRONMENT_PREFIX + self.key.replace(".", "__").upper()


def load_config(
    cls: type[T],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> T:
    """An instance of `cls` from `file` (may be None), then `environment`, then `overrides` (dotted keys; None values are skipped).

    Environment variables are `FSN_` + the key in capitals with `__` for the dot. Raises `ConfigError` that lists every mistake.
    """
    tree = _read_toml(file) if file is not None else {}
    known = {setting.environment_variable: setting for setting in settings(cls)}
    for name, text in sorted((environment or {}).items()):
        if name in known:
            _put(tree, known[name].key, _from_text(text, known[name].type))
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key, value)
    return _structured(cls, tree, source=str(file) if file else "the configuration")


def settings(cls: type[Any], prefix: str = "") -> Iterator[Setting]:
    """All leaves below `cls`, in the order of their definition."""
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):
        if not field.init:
            continue
        key, kind = prefix + field.name, hints[field.name]
        if attrs.has(kind):
            yield from settings(kind, key + ".")
        else:
            yield Setting(key, kind, _default_of(field))


def config_as_toml(config: Any) -> str:
    """`config` as a TOML document that `load_config` reads back to an equal value; settings that are None are left out."""
    lines: list[str] = []
    _write_table(config, "", lines)
    return "\n".join(lines).strip() + "\n"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _default_of(field: "attrs.Attribute[Any]") -> Any:
    default: Any = field.default
    if isinstance(default, _FACTORY):
        return default.factory()
    return default


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *folders, leaf = key.split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[leaf] = value


def _from_text(text: str, kind: Any) -> object:
    """An environment variable's text as what TOML would have given; plain text stays text."""
    if str in _alternatives(kind) or Path in _alternatives(kind):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _structured(cls: type[T], tree: Mapping[str, Any], source: str) -> T:
    try:
        return _CONVERTER.structure(tree, cls)
    except ClassValidationError as error:
        mistakes = [line.replace(" @ $.", " @ ").replace(" @ $", "") for line in transform_error(error, "$", _explain)]
        shown = "; ".join(_key_first(mistake) for mistake in mistakes)
        raise ConfigError(f"{source}: {shown}", mistakes=[_key_first(mistake) for mistake in mistakes]) from error


def _key_first(mistake: str) -> str:
    text, at, key = mistake.rpartition(" @ ")
    return f"{key}: {text}" if at else mistake


def _explain(error: BaseException, kind: type[Any] | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown setting: {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return "must be given"
    if isinstance(error, FsnError):
        return error.message
    return str(error)


def _strict_integer(value: object, _: type) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a whole number is wanted, found {value!r}")
    return value


def _strict_float(value: object, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is wanted, found {value!r}")
    return float(value)


def _strict_bool(value: object, _: type) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is wanted, found {value!r}")
    return value


def _strict_text(value: object, _: type) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text is wanted, found {value!r}")
    return value


def _byte_size(value: object, _: type) -> int:
    if isinstance(value, str):
        return int(parse_size(value))
    return _strict_integer(value, int)


def _path(value: object, _: type) -> Path:
    if isinstance(value, Path):
        return value
    return Path(_strict_text(value, str)).expanduser()


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _strict_integer)
    converter.register_structure_hook(float, _strict_float)
    converter.register_structure_hook(bool, _strict_bool)
    converter.register_structure_hook(str, _strict_text)
    converter.register_structure_hook(ByteSize, _byte_size)
    converter.register_structure_hook(Path, _path)
    for kind in (int, float, bool, str, Path, ByteSize):
        converter.register_structure_hook(kind | None, _optional(converter, kind))
    return converter


def _optional(converter: cattrs.Converter, kind: Any) -> Any:
    return lambda value, _: None if value is None else converter.structure(value, kind)


_CONVERTER = _make_converter()


def _write_table(config: Any, prefix: str, lines: list[str]) -> None:
    tables = []
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if attrs.has(type(value)):
            tables.append((field.name, value))
        elif value is not None and field.init:
            lines.append(f"{field.name} = {_toml_value(value)}")
    for name, value in tables:
        lines.extend(("", f"[{prefix}{name}]"))
        _write_table(value, f"{prefix}{name}.", lines)


def _toml_value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case tuple() | list():
            return f"[{', '.join(_toml_value(item) for item in value)}]"
        case timedelta():
            return repr(value.total_seconds())
        case _:
            return _toml_text(str(value))


def _toml_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
