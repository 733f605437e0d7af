"""Typed HTTP operations: one declaration validates the request, encodes the answer, and is kept for the OpenAPI document."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import attrs
import msgspec
from quart import Quart, Response

from fsn.core.errors import FsnError, Invalid, RateLimited
from fsn.web.quart_front import FrontRequest, current_request

__all__ = [
    "JSON_LIMIT_BYTES",
    "Answer",
    "Coded",
    "FileContent",
    "Guard",
    "Operation",
    "Operations",
    "RequestModel",
    "form_field",
    "is_optional",
    "json_response",
]

JSON_LIMIT_BYTES = 64 * 1024
"""The longest JSON body, unless an operation says otherwise."""

Handler = Callable[..., Awaitable[Any]]
_Handler = TypeVar("_Handler", bound=Handler)
Guard = Callable[["Operation"], Awaitable[None]]


class RequestModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of bodies and queries: members that are not declared are refused, so that a misspelt option is never silently dropped.

    Write `class Login(RequestModel, frozen=True, kw_only=True)`: the type checker wants `frozen` said again.
    """


class FileContent:
    """In the class of a form: a part with a file name, whose bytes the handler streams."""


@attrs.frozen
class Coded:
    """An error class of an operation, with the finer codes that it has there beside the class's own."""

    kind: type[FsnError]
    codes: tuple[str, ...]

    @classmethod
    def of(cls, error: "type[FsnError] | Coded") -> "Coded":
        """`error` in this form, for one that may be a class alone."""
        return error if isinstance(error, cls) else cls(error, ())  # type: ignore[arg-type]


@attrs.frozen(kw_only=True)
class Answer:
    """A response beside the one that `ok` declares: JSON of a type, a problem with a code, or no body at all."""

    status: int
    summary: str
    type: Any = None
    produces: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Names, with what they tell."""


@attrs.frozen(kw_only=True)
class Operation:
    """What one method of one path takes and gives. All that OpenAPI needs is here (`fsn.web.openapi`)."""

    method: str
    rule: str
    """Werkzeug's rule, e.g. `/api/v1/files/<uuid:file_id>`; its variables become keyword arguments of the handler."""
    summary: str
    handler: Handler
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Request headers that the handler heeds, with what they are for."""
    raw: str | None = None
    """Media type of a body that the handler streams itself."""
    form: type[msgspec.Struct] | None = None
    """Fields and files of a multipart/form-data body that the handler streams itself, in place of `raw` or as another way. Parts that it
    does not name are ignored: browsers send along what a page has."""
    ok_status: int = 200
    ok_type: Any = None
    """What is answered as JSON; None when the answer has no body, or is a stream of `produces`."""
    ok_headers: Mapping[str, str] = attrs.field(factory=dict)
    """Headers of that answer beyond those that all have, with what they tell."""
    leads_to: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """By a member of that answer: the operations (by their handlers' names) whose path takes it as its id."""
    produces: str | None = None
    answers: tuple[Answer, ...] = ()
    """Further answers that are no errors of ours."""
    errors: tuple[type[FsnError] | Coded, ...] = ()
    """What the handler raises. What comes before it is added by itself: 400 for a query or JSON body, 401, 413, 500."""
    tags: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    """Names of the security schemes of which one is needed; empty for anyone."""
    max_body_bytes: int | None = JSON_LIMIT_BYTES
    """The longest body; None for no limit here (a handler that streams sets `current_request().max_content_length` itself)."""

    @property
    def operation_id(self) -> str:
        """The handler's name, which is unique in one registry."""
        return self.handler.__name__

    @property
    def is_upload(self) -> bool:
        """Whether the handler streams a body in."""
        return self.raw is not None or self.form is not None

    @property
    def description(self) -> str:
        """The handler's docstring."""
        return inspect.getdoc(self.handler) or ""


@attrs.define
class Operations:
    """The operations of one application, in the order of their declaration. `install` puts them into a Quart application.

    `guard` is awaited before anything of a request is read, with its operation: it raises Unauthorized or Forbidden for who may not.
    """

    guard: Guard | None = None
    guard_errors: tuple[type[FsnError], ...] = (RateLimited,)
    """What the guard may raise for any of them, beside 401."""
    _operations: list[Operation] = attrs.field(factory=list, init=False)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def operation(
        self,
        method: str,
        rule: str,
        *,
        summary: str,
        body: type[msgspec.Struct] | None = None,
        query: type[msgspec.Struct] | None = None,
        headers: Mapping[str, str] | None = None,
        raw: str | None = None,
        form: type[msgspec.Struct] | None = None,
        ok: tuple[int, Any] = (200, None),
        ok_headers: Mapping[str, str] | None = None,
        leads_to: Mapping[str, tuple[str, ...]] | None = None,
        produces: str | None = None,
        answers: tuple[Answer, ...] = (),
        errors: tuple[type[FsnError] | Coded, ...] = (),
        tags: tuple[str, ...] = (),
        security: tuple[str, ...] = (),
        max_body_bytes: int | None = JSON_LIMIT_BYTES,
    ) -> Callable[[_Handler], _Handler]:
        """Declare the decorated async function as an operation.

        It is called with the rule's variables and, where declared, `body=` and `query=`, and returns what `ok` says (None for no
        body) or a Quart Response, or raises an FsnError. A JSON body is taken under any content type: curl -d sends a form's.
        Raises TypeError for a body or query class that would drop unknown members, and for a handler's name used twice.
        """
        for model in (body, query):
            _check_model(model)

        def declare(handler: _Handler) -> _Handler:
            if any(known.operation_id == handler.__name__ for known in self._operations):
                raise TypeError(f"{handler.__name__} is already the name of an operation")
            declared = Operation(
                method=method.upper(),
                rule=rule,
                summary=summary,
                handler=handler,
                body=body,
                query=query,
                headers=headers or {},
                raw=raw,
                form=form,
                ok_status=ok[0],
                ok_type=ok[1],
                ok_headers=ok_headers or {},
                leads_to=leads_to or {},
                produces=produces,
                answers=answers,
                errors=errors if self.guard is None else (*errors, *self.guard_errors),
                tags=tags,
                security=security,
                max_body_bytes=max_body_bytes,
            )
            self._operations.append(declared)
            return handler

        return declare

    def install(self, app: Quart) -> None:
        """Route every operation declared so far in `app` (made a problem-answering one by `problems.install_problems`)."""
        for operation in self._operations:
            app.add_url_rule(operation.rule, operation.operation_id, self._view(operation), methods=[operation.method])

    def _view(self, operation: Operation) -> Callable[..., Awaitable[Response]]:
        async def view(**arguments: Any) -> Response:
            request = current_request()
            request.max_content_length = operation.max_body_bytes
            if self.guard is not None:
                await self.guard(operation)
            if operation.query is not None:
                arguments["query"] = _read_query(request, operation.query)
            if operation.body is not None:
                arguments["body"] = _parse_body(await request.body, operation.body)
            return _answer(operation, await operation.handler(**arguments))

        return view


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` (structs, UUIDs, aware datetimes, ...) as JSON, for a handler that must set a status or header of its own."""
    response = Response(msgspec.json.encode(value), status, content_type="application/json")
    response.headers.update(dict(headers or {}))
    return response


def form_field(kind: Any, name: str, text: str) -> Any:
    """The value of a form's text field as a value of `kind`. Raises Invalid."""
    try:
        return msgspec.convert(text.strip(), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"form field {name}: {error}; its text is {text.strip()[:50]!r}") from error


def _answer(operation: Operation, result: object) -> Response:
    if isinstance(result, Response):
        return result
    if operation.ok_type is None:
        assert result is None, f"{operation.operation_id} declares no answer and gave one"
        return Response(b"", operation.ok_status, content_type="text/plain")
    return json_response(result, operation.ok_status)


@functools.cache
def _fields_of(model: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(model)}


def _read_query(request: FrontRequest, model: type[msgspec.Struct]) -> msgspec.Struct:
    _check_is_text(request.query_string)
    values: dict[str, str] = {}
    known = _fields_of(model)
    for name, given in request.args.lists():
        if name not in known:
            raise Invalid(
                f"query parameter {name!r} is not known here; {', '.join(sorted(known)) or 'none'} can be given"
            )
        if len(given) > 1:
            raise Invalid(f"query parameter {name!r} is wanted once; it was given {len(given)} times")
        if known[name].default is None and given[0].lower() == "null":  # taken for none, it would begin a list anew
            raise Invalid(f"query parameter {name!r} wants a value, or is left out; got {given[0]}")
        values[name] = given[0]
    try:
        return msgspec.convert(values, model, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"query: {error}") from error


def _check_is_text(query_string: bytes) -> None:
    """Werkzeug keeps bytes that are no UTF-8 as they were escaped: `%FF` would become the name of a file."""
    try:
        unquote_to_bytes(query_string).decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            f"query: UTF-8 is wanted, percent-encoded; it is not (byte {error.start}: {error.reason})"
        ) from error


def _parse_body(data: bytes, model: type[msgspec.Struct]) -> msgspec.Struct:
    if not data.strip():
        if not is_optional(model):
            raise Invalid("a JSON object is wanted as the body; the body is empty")
        data = b"{}"
    try:
        # In two steps: JSON Schema counts 5.0 among the integers, which msgspec's typed decoder does not.
        return msgspec.convert(_DECODER.decode(data), model)
    except msgspec.ValidationError as error:
        raise Invalid(f"body: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"a JSON object is wanted as the body; it cannot be read: {error}") from error


def is_optional(model: type[msgspec.Struct]) -> bool:
    """Whether a body of this class may be left out: all its members have defaults."""
    return not any(field.required for field in msgspec.structs.fields(model))


def _number(text: str) -> int | float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is out of range")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_DECODER = msgspec.json.Decoder(float_hook=_number)


def _check_model(model: type[msgspec.Struct] | None) -> None:
    if model is not None and not model.__struct_config__.forbid_unknown_fields:
        raise TypeError(f"{model.__name__} must refuse unknown members: derive it from RequestModel")
