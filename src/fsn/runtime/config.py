"""Configuration: frozen attrs classes filled from TOML, then the environment, then flags. Every mistake is reported, by its key."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import attrs

from fsn.core.errors import ConfigError, FsnError
from fsn.runtime.settings import ByteSize, alternatives, structured, toml_value

__all__ = ["ByteSize", "Setting", "built_section", "config_as_toml", "load_config", "read_toml", "settings"]

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

    Environment variables are `FSN_` + the key in capitals with `__` for the dot; a list may be TOML or text separated by commas. Raises
    `ConfigError` that lists every mistake, and holds them as `facts["mistakes"]`.
    """
    tree = read_toml(file) if file is not None else {}
    known = {setting.environment_variable: setting for setting in settings(cls)}
    for name, text in sorted((environment or {}).items()):
        if name in known:
            _put(tree, known[name].key, _from_text(text, known[name].type))
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key, value)
    mistakes: list[str] = []
    config = _built(cls, tree, "", None, mistakes)
    if config is None:
        raise ConfigError(f"{file or 'the configuration'}: {'; '.join(mistakes)}", mistakes=mistakes)
    return config


def settings(cls: type[Any], prefix: str = "", default: Any = None) -> Iterator[Setting]:
    """All leaves below `cls`, in the order of their definition; their defaults are those of the instance `default`, if there is one."""
    for field, kind in _fields(cls):
        key, otherwise = prefix + field.name, _default_of(field, default)
        if attrs.has(kind):
            yield from settings(kind, key + ".", None if otherwise is attrs.NOTHING else otherwise)
        else:
            yield Setting(key, kind, otherwise)


def config_as_toml(config: Any) -> str:
    """`config` as a TOML document that `load_config` reads back to an equal value.

    A setting that is None, as it is by default, is left out. A setting that its class keeps out of its repr (`repr=False`) may hold a
    secret: a comment says that it is set, and it must be given again. Raises `ConfigError` for text that TOML cannot say (bytes that are
    no UTF-8, in a path or a variable).
    """
    lines: list[str] = []
    _write_table(config, "", lines)
    return "\n".join(lines).strip() + "\n"


def built_section(cls: type[T], tree: object, key: str, mistakes: list[str], default: T | None = None) -> T | None:
    """An instance of `cls` from a table that stands at `key` of a file; None when there are mistakes in it, which are appended, each
    with its key. What the table does not say is as in `default`, else as the class says."""
    return _built(cls, tree, f"{key}." if key else "", default, mistakes)


def read_toml(file: Path) -> dict[str, Any]:
    """A file's tables. Raises ConfigError when it cannot be read or is no TOML."""
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no UTF-8, no TOML, a number of 5000 digits
        raise ConfigError(f"{file}: {error}") from error


def _fields(cls: type[Any]) -> "Iterator[tuple[attrs.Attribute[Any], Any]]":
    hints = get_type_hints(cls)
    return ((field, hints[field.name]) for field in attrs.fields(cls) if field.init)


def _default_of(field: "attrs.Attribute[Any]", default: Any) -> Any:
    """What the field is when nothing is said: as in the instance `default`, else as the class says; attrs.NOTHING when it must be given."""
    if default is not None:
        return getattr(default, field.name)
    chosen: Any = field.default
    return chosen.factory() if isinstance(chosen, _FACTORY) else chosen


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *folders, leaf = key.split(".")
    found: Any = tree
    for folder in folders:
        found = found.setdefault(folder, {})
        if not isinstance(found, dict):  # a mistake in the file, which is told later
            return
    found[leaf] = value


def _from_text(text: str, kind: Any) -> object:
    """An environment variable's text as what TOML would have given; plain text stays text."""
    if {str, Path} & set(alternatives(kind)):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        is_list = any(get_origin(kind) is tuple for kind in alternatives(kind))
        return [item.strip() for item in text.split(",") if item.strip()] if is_list else text


def _built(cls: type[T], tree: object, prefix: str, default: Any, mistakes: list[str]) -> T | None:
    """An instance of `cls` from `tree`; None when there are mistakes in it, which are appended to `mistakes`."""
    section, known = prefix.removesuffix("."), [field.name for field, _ in _fields(cls)]
    if not isinstance(tree, Mapping):
        mistakes.append(f"{section}: a section [{section}] is wanted, found {tree!r}")
        return None
    found = [f"{prefix}{name}: unknown setting" for name in tree if name not in known]
    values = {field.name: _value(field, kind, tree, prefix, default, found) for field, kind in _fields(cls)}
    if not found:
        try:
            return cls(**values)
        except (ValueError, TypeError, FsnError) as error:  # a rule on several settings together
            found.append(": ".join(filter(None, (section, str(error)))))
    mistakes.extend(found)
    return None


def _value(
    field: "attrs.Attribute[Any]", kind: Any, tree: Mapping[str, Any], prefix: str, default: Any, mistakes: list[str]
) -> Any:
    key, otherwise = prefix + field.name, _default_of(field, default)
    if attrs.has(kind):
        otherwise = None if otherwise is attrs.NOTHING else otherwise
        return _built(kind, tree.get(field.name, {}), key + ".", otherwise, mistakes)
    if field.name not in tree:
        if otherwise is attrs.NOTHING:
            mistakes.append(f"{key}: must be given")
        return otherwise
    try:
        return _checked(field, structured(tree[field.name], kind))
    except (ValueError, TypeError, FsnError) as error:
        reason = str(error.args[0] if error.args else error)  # attrs' in_ has more arguments, for programs
        mistakes.append(f"{key}: {reason.removeprefix(f'{field.name!r} ').removeprefix(f'{field.name} ')}")
        return None


def _checked(field: "attrs.Attribute[Any]", value: Any) -> Any:
    """`value`, when the field's validators have nothing against it. Settings' validators look at nothing but the value."""
    if field.validator is not None:
        field.validator(None, field, value)
    return value


def _write_table(config: Any, prefix: str, lines: list[str]) -> None:
    tables = []
    for field, _ in _fields(type(config)):
        value = getattr(config, field.name)
        if attrs.has(type(value)):
            tables.append((field.name, value))
        elif value is not None and field.repr is False:
            lines.append(f"# {field.name} is set, and not shown: it may hold a secret")
        elif value is not None or _default_of(field, None) is not None:
            lines.append(f"{field.name} = {toml_value(value)}")
    for name, value in tables:
        lines.extend(("", f"[{prefix}{name}]"))
        _write_table(value, f"{prefix}{name}.", lines)
