"""The page docs/reference/http-api.md: every operation of both HTTP APIs as it is declared, and what goes in and out."""

import types
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from types import SimpleNamespace
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import attrs
import msgspec

from fsn.coord.services import Services
from fsn.node.services import NodeServices
from fsn.web.admin.app import _operations as admin_operations
from fsn.web.app import coordinator_operations
from fsn.web.openapi import path_of, problems_of
from fsn.web.operations import FileContent, Operation, Operations
from tools.markdown import row, summary

__all__ = ["admin_api", "coordinator_api", "http_page", "path_of"]


def http_page() -> Iterator[str]:
    """Every operation of the coordinator's API and of a node's admin API."""
    yield from (
        "",
        "# HTTP API",
        "",
        "Errors are `application/problem+json` (RFC 9457) with a stable `code` ([errors](errors.md)) and the `request_id` that every",
        "response carries as `X-Request-Id`. A JSON body is taken under any content type, and members that are not declared are",
        "refused. Lists are paged: `next_cursor` of one page is `cursor` of the next, null on the last. A user's token goes into",
        "`Authorization: Bearer ...`, a node's API key into `X-API-Key`. GET also answers HEAD. A bug is 500 `internal`.",
        "",
        "As an OpenAPI 3.1 document: `GET /openapi.json` of a running coordinator. `/docs` there shows it and tries it out, offline.",
    )
    yield from ("", "## Coordinator", "", "Listens on `http://localhost:8080` unless told otherwise.")
    yield from _operations_section(coordinator_api())
    yield from (
        "",
        "## Storage node: admin API",
        "",
        "Listens on `http://127.0.0.1:8090` unless told otherwise, loopback only. What changes something wants the token in `admin.token`",
        "(mode 0600, in the node's folder) as `Authorization: Bearer ...`.",
    )
    yield from _operations_section(admin_api())
    yield from ("", "## Objects", *_objects([*coordinator_api(), *admin_api()]))


def coordinator_api() -> Operations:
    """The operations as declared; nothing runs behind them."""
    return coordinator_operations(_idle_services(), lambda host: ())


def admin_api() -> Operations:
    """The operations of a node's admin API as declared."""
    return admin_operations(cast(NodeServices, None))


def _idle_services() -> Services:
    parts: dict[str, Any] = {field.name: None for field in attrs.fields(Services)}
    return Services(**{**parts, "membership": SimpleNamespace(counts={"online": 0})})


def _operations_section(operations: Operations) -> Iterator[str]:
    yield from ("", "| operation | who | what |", "|---|---|---|")
    for operation in operations:
        yield row(f"`{operation.method} {path_of(operation)}`", _who(operation), operation.summary)
    for operation in operations:
        yield from _operation(operation)


def _operation(operation: Operation) -> Iterator[str]:
    yield from (
        "",
        f"### {operation.method} {path_of(operation)}",
        "",
        _sentences(operation),
    )
    yield from ("", f"* Who: {_who(operation)}.")
    if operation.query is not None:
        yield f"* Query: {_fields_line(operation.query)}."
    if operation.body is not None:
        yield f"* Body: JSON {_type(operation.body)}."
    if operation.raw is not None:
        yield f"* Body: `{operation.raw}`, streamed."
    if operation.form is not None:
        yield f"* {'Or a' if operation.raw else 'A'} form, `multipart/form-data`, streamed: {_fields_line(operation.form)}."
    for name, text in operation.headers.items():
        yield f"* Header `{name}`: {_sentence(text)}"
    answer = _type(operation.ok_type) if operation.ok_type is not None else f"`{operation.produces}`"
    yield f"* Answers {operation.ok_status}" + (
        f": {answer}." if operation.ok_type or operation.produces else ", no body."
    )
    yield from (f"* Header `{name}`: {_sentence(text)}" for name, text in operation.ok_headers.items())
    yield from (
        f"* Answers {other.status}: {_sentence(other.summary)}" for other in operation.answers if other.code is None
    )
    yield f"* Errors: {', '.join(f'{status} {_codes(codes)}' for status, codes in problems_of(operation).items() if status != 500)}."


def _sentences(operation: Operation) -> str:
    return f"{_sentence(operation.summary)} {operation.description}".strip()


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _codes(codes: Sequence[str]) -> str:
    return "/".join(f"`{code}`" for code in codes)


def _who(operation: Operation) -> str:
    names = {
        "user": "user (bearer token)",
        "node": "node (`X-API-Key`)",
        "admin": "the operator (token in `admin.token`)",
    }
    return " or ".join(names[scheme] for scheme in operation.security) or "anyone"


def _fields_line(model: type[msgspec.Struct]) -> str:
    return ", ".join(f"`{name}` ({kind}{rest})" for name, kind, rest in _fields(model))


def _fields(model: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    hints = get_type_hints(model, include_extras=True)
    for field in msgspec.structs.fields(model):
        rest = "" if field.required else ", optional"
        if field.default not in (msgspec.NODEFAULT, msgspec.UNSET, None, ""):
            rest = f", {field.default} if not given"
        yield field.encode_name, _type(hints[field.name]), rest


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(arguments[0]) + _limits(kind.__metadata__)
    if origin in (Union, types.UnionType):
        shown = [_type(part) for part in arguments if part is not msgspec.UnsetType and part is not type(None)]
        return " or ".join([*shown, *(["null"] if type(None) in arguments else [])])
    if origin is Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if origin is tuple and ... not in arguments:
        return f"[{', '.join(map(_type, arguments))}]"
    if origin in (list, tuple, Sequence):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"[{_title(kind)}](#{_title(kind).lower()})"
    if kind is FileContent:
        return "file"
    return {
        str: "text",
        int: "integer",
        float: "number",
        bool: "boolean",
        UUID: "UUID",
        datetime: "time (RFC 3339)",
        date: "date",
    }[kind]


def _limits(metadata: Sequence[Any]) -> str:
    shown = []
    for meta in metadata:
        shown += [f"from {meta.ge}"] if meta.ge is not None else []
        shown += [f"to {meta.le}"] if meta.le is not None else []
        shown += [f"matching `{meta.pattern}`"] if meta.pattern is not None else []
        shown += [f"at most {meta.max_length} characters"] if meta.max_length is not None else []
    return f", {' '.join(shown)}" if shown else ""


def _title(model: type[msgspec.Struct]) -> str:
    """The class's name, of which there is one."""
    return model.__name__


def _objects(operations: Sequence[Operation]) -> Iterator[str]:
    found: dict[str, type[msgspec.Struct]] = {}
    for operation in operations:
        for kind in (operation.body, operation.ok_type):
            _collect(kind, found)
    for title in sorted(found):
        yield from ("", f"### {title}", "", summary(found[title]), "", "| member | type |", "|---|---|")
        yield from (row(f"`{name}`", kind + rest) for name, kind, rest in _fields(found[title]))


def _collect(kind: Any, found: dict[str, type[msgspec.Struct]]) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        assert found.setdefault(_title(kind), kind) is kind, f"two classes are called {_title(kind)}"
        for hint in get_type_hints(kind, include_extras=True).values():
            _collect(hint, found)
    for argument in get_args(kind):
        _collect(argument, found)
