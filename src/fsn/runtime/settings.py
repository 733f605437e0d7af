"""The kinds of values that a setting can have: read from what TOML knows, and written as TOML."""

import types
from pathlib import Path
from typing import Any, Literal, NewType, Union, get_args, get_origin

import cattrs

from fsn.core.errors import ConfigError
from fsn.core.units import parse_size

__all__ = ["ByteSize", "alternatives", "structured", "toml_value"]

ByteSize = NewType("ByteSize", int)
"""A number of bytes; in a file it may be written as a number or as text, e.g. "10GB" or "512MiB"."""

NONE = "none"
"""How a setting is written that may be None and is not by default: TOML has no word for it."""


def structured(value: object, kind: Any) -> Any:
    """`value`, from TOML, the environment or a flag, as a setting of this `kind`. Raises ValueError or an FsnError: what is wanted."""
    return _CONVERTER.structure(value, kind)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types in a union, or the one type."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def toml_value(value: object) -> str:
    """A setting's value as TOML. Raises `ConfigError` for text that TOML cannot say."""
    match value:
        case None:
            return _toml_text(NONE)
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case tuple() | list():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case _:
            return _toml_text(str(value))


def _toml_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _toml_escape(c) for c in escaped) + '"'


def _toml_escape(character: str) -> str:
    number = ord(character)
    if 0xD800 <= number <= 0xDFFF:
        raise ConfigError("text that is not valid UTF-8 cannot be written to a configuration file")
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _integer(value: object, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a whole number is wanted, found {value!r}")
    return value


def _number(value: object, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number is wanted, found {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number below 1e308 is wanted, found a larger one") from None


def _bool(value: object, _: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is wanted, found {value!r}")
    return value


def _text(value: object, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text is wanted, found {value!r}")
    return value


def _byte_size(value: object, _: Any) -> int:
    return parse_size(value) if isinstance(value, str) else _integer(value, int)


def _path(value: object, _: Any) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(value, str)
    if "\0" in text:
        raise ValueError(f"a path has no NUL, found {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        raise ValueError(f"there is no such home folder: {text!r}") from None


def _word(value: object, kind: Any) -> object:
    if value not in get_args(kind):
        raise ValueError(f"one of {', '.join(map(repr, get_args(kind)))} is wanted, found {value!r}")
    return value


def _list(value: object, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list is wanted, found {value!r}")
    return tuple(structured(item, get_args(kind)[0]) for item in value)


def _optional(value: object, kind: Any) -> Any:
    [inner] = [each for each in alternatives(kind) if each is not type(None)]
    if value is None or (value == NONE and inner not in (str, Path)):
        return None
    return structured(value, inner)


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_optional(kind: Any) -> bool:
    return type(None) in alternatives(kind)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    hooks = {int: _integer, float: _number, bool: _bool, str: _text, ByteSize: _byte_size, Path: _path}
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(_is_literal, _word)
    converter.register_structure_hook_func(_is_tuple, _list)
    converter.register_structure_hook_func(_is_optional, _optional)
    return converter


_CONVERTER = _make_converter()
