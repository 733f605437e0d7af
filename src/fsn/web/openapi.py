"""The OpenAPI 3.1 document, made from the declarations and classes that validate requests and encode answers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

import msgspec
from msgspec.json import schema_components

from fsn.core.errors import Corrupt, FsnError, Invalid, RateLimited, StorageError, TooLarge, Unauthorized
from fsn.web.operations import Answer, Coded, FileContent, Operation, is_optional
from fsn.web.problems import PROBLEM_TYPE, Problem, status_of

__all__ = ["openapi_document", "path_of", "problems_of"]

Json = dict[str, Any]
GUARD_CODES: Mapping[str, tuple[str, ...]] = {
    "user": ("token_missing", "token_invalid", "token_expired"),
    "node": ("token_missing", "api_key_invalid"),
    "admin": ("token_missing", "token_invalid"),
}
"""Why a guard (`fsn.web.auth`) turns a request away, by the scheme that was tried."""
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_VARIABLE = re.compile(r"<uuid:(\w+)>")
JSON, FORM, BYTES = "application/json", "multipart/form-data", "application/octet-stream"
_REFERENCES = "#/components/schemas/{name}"
_WHEREVER = Coded(FsnError, (StorageError.code, Corrupt.code))
"""A bug, a disk that fails, a catalogue that contradicts itself: what a client cannot help, anywhere."""
_HEADERS = {
    "X-Request-Id": "The request's id, which is in our log: the client's own if it sent a sane one.",
    "Retry-After": "Seconds after which the same request may succeed.",
    "WWW-Authenticate": "How to say who asks.",
}


def openapi_document(
    operations: Iterable[Operation], *, title: str, version: str, description: str, schemes: Mapping[str, Json]
) -> Json:
    """The whole document, JSON-ready. `schemes` are the security schemes that operations name."""
    declared = list(operations)
    schemas = _Schemas(declared)
    paths: dict[str, Json] = {}
    for operation in declared:
        paths.setdefault(path_of(operation), {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description, "license": _LICENSE},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(tag for operation in declared for tag in operation.tags)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {name: _header(text) for name, text in _HEADERS.items()},
            "securitySchemes": dict(schemes),
        },
    }


def path_of(operation: Operation) -> str:
    """The rule as people write paths: `/api/v1/files/{file_id}`."""
    return _VARIABLE.sub(r"{\1}", operation.rule)


def problems_of(operation: Operation) -> dict[int, tuple[str, ...]]:
    """Every status that comes with a problem document, in order, and the codes that it has here."""
    found: dict[int, list[str]] = {}
    for error in (*_before_the_handler(operation), *map(Coded.of, operation.errors), _WHEREVER):
        found.setdefault(int(status_of(error.kind)), []).extend((error.kind.code, *error.codes))
    for answer in operation.answers:
        if answer.code is not None:
            found.setdefault(answer.status, []).append(answer.code)
    return {status: tuple(dict.fromkeys(codes)) for status, codes in sorted(found.items())}


def _before_the_handler(operation: Operation) -> Iterator[Coded]:
    """What `Operations` itself refuses."""
    if operation.query is not None or operation.body is not None:
        yield Coded(Invalid, ())
    for scheme in operation.security:
        yield Coded(Unauthorized, GUARD_CODES[scheme])
    if operation.security and (operation.is_upload or operation.produces is not None):
        yield Coded(RateLimited, ("too_many_transfers",))
    if _takes_body(operation) and operation.max_body_bytes is not None:
        yield Coded(TooLarge, ())


def _takes_body(operation: Operation) -> bool:
    return operation.body is not None or operation.is_upload


class _Schemas:
    """JSON Schemas of all classes that the operations name. Those of structs are components, but for queries: these are parameters."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        types = list(dict.fromkeys([Problem, *(kind for operation in operations for kind in _types(operation))]))
        schemas, self.components = schema_components(types, schema_hook=_file_schema, ref_template=_REFERENCES)
        self._schemas = dict(zip(types, schemas, strict=True))
        self.variables = {operation.operation_id: _VARIABLE.findall(operation.rule) for operation in operations}
        """Of each operation's path."""
        queries = dict.fromkeys(operation.query for operation in operations if operation.query is not None)
        self._queries = {query: self.components.pop(query.__name__) for query in queries}
        for form in {operation.form for operation in operations if operation.form is not None}:
            members = self.components[form.__name__]["properties"]
            members.update({name: _without_null(schema) for name, schema in members.items()})
        for component in self.components.values():
            component["description"] = cleandoc(component.get("description", ""))

    def of(self, kind: Any) -> Json:
        """A schema, or a reference to one."""
        schema: Json = self._schemas[kind]
        return schema

    def parameters(self, query: type[msgspec.Struct]) -> Iterator[Json]:
        """One for each member of a query."""
        members, required = self._queries[query]["properties"], self._queries[query]["required"]
        for name, schema in members.items():
            yield {"name": name, "in": "query", "required": name in required, **_described(_without_null(schema))}


def _types(operation: Operation) -> Iterator[Any]:
    for kind in (operation.body, operation.query, operation.form, operation.ok_type):
        if kind is not None:
            yield kind
    yield from (answer.type for answer in operation.answers if answer.type is not None)


def _file_schema(kind: type) -> Json:
    """For msgspec, which asks about the types that it does not know."""
    assert kind is FileContent, f"{kind} has no JSON Schema"
    return {"type": "string", "format": "binary", "contentMediaType": BYTES}


def _without_null(schema: Json) -> Json:
    """A parameter or field is left out, never null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {key: value for key, value in schema.items() if value is not None}


def _described(schema: Json) -> Json:
    """The description belongs to the parameter, beside its schema."""
    schema = dict(schema)
    description = schema.pop("description", None)
    return {"description": description, "schema": schema} if description else {"schema": schema}


def _operation(operation: Operation, schemas: _Schemas) -> Json:
    responses = _responses(operation, schemas)
    if operation.leads_to:
        responses[str(operation.ok_status)]["links"] = dict(_links(operation, schemas))
    told: Json = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": list(operation.tags),
        "parameters": [*_path_parameters(operation), *_header_parameters(operation)],
        "responses": responses,
        "security": [{scheme: []} for scheme in operation.security],
    }
    if operation.query is not None:
        told["parameters"] += schemas.parameters(operation.query)
    if _takes_body(operation):
        told["requestBody"] = {"required": _needs_body(operation), "content": _request_content(operation, schemas)}
    return {key: value for key, value in told.items() if value or key == "security"}


def _path_parameters(operation: Operation) -> Iterator[Json]:
    for name in _VARIABLE.findall(operation.rule):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


def _header_parameters(operation: Operation) -> Iterator[Json]:
    for name, text in operation.headers.items():
        yield {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _needs_body(operation: Operation) -> bool:
    return operation.raw is None and not (operation.body is not None and is_optional(operation.body))


def _request_content(operation: Operation, schemas: _Schemas) -> Json:
    content: Json = {}
    if operation.body is not None:
        content[JSON] = {"schema": schemas.of(operation.body)}
    if operation.raw is not None:
        content[operation.raw] = {"schema": {"contentMediaType": operation.raw}}
    if operation.form is not None:
        content[FORM] = {"schema": schemas.of(operation.form)}
    return content


def _responses(operation: Operation, schemas: _Schemas) -> Json:
    said = Answer(
        status=operation.ok_status,
        summary=operation.summary,
        type=operation.ok_type,
        produces=operation.produces,
        headers=operation.ok_headers,
    )
    answers = [said, *(answer for answer in operation.answers if answer.code is None)]
    responses = {answer.status: _response(answer, schemas) for answer in answers}
    headers = {answer.status: answer.headers for answer in operation.answers}
    for status, codes in problems_of(operation).items():
        assert status not in responses, f"{operation.operation_id} answers {status} in two ways"
        responses[status] = _problem(status, codes, headers.get(status, {}), schemas)
    return {str(status): responses[status] for status in sorted(responses)}


def _links(operation: Operation, schemas: _Schemas) -> Iterator[tuple[str, Json]]:
    for member, targets in operation.leads_to.items():
        for target in targets:
            (variable,) = schemas.variables[target]
            yield target, {"operationId": target, "parameters": {variable: f"$response.body#/{member}"}}


def _response(answer: Answer, schemas: _Schemas) -> Json:
    told: Json = {"description": answer.summary, "headers": _headers(answer.headers)}
    if answer.type is not None:
        told["content"] = {JSON: {"schema": schemas.of(answer.type)}}
    elif answer.produces is not None:
        told["content"] = {answer.produces: {}}
    return told


def _problem(status: int, codes: tuple[str, ...], headers: Mapping[str, str], schemas: _Schemas) -> Json:
    narrowed = {"properties": {"code": {"enum": list(codes)}, "status": {"const": status}}}
    told: Json = {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(headers),
        "content": {PROBLEM_TYPE: {"schema": {"allOf": [schemas.of(Problem), narrowed]}}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        told["headers"]["Retry-After"] = _shared_header("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        told["headers"]["WWW-Authenticate"] = _shared_header("WWW-Authenticate")
    return told


def _headers(own: Mapping[str, str]) -> Json:
    return {"X-Request-Id": _shared_header("X-Request-Id"), **{name: _header(text) for name, text in own.items()}}


def _shared_header(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}
