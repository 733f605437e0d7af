"""Typed operations: what is validated, what is refused and how, and what is kept for OpenAPI."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from quart.typing import TestClientProtocol as Client

from fsn.core.errors import Conflict, NotFound, RateLimited, Unauthorized
from fsn.web.operations import Operation, Operations, RequestModel, json_response
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart

ITEM = "6f1d7f0e-0000-4000-8000-00000000000a"


class Put(RequestModel, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=10)]
    size_bytes: int = 0


class Search(RequestModel, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: str | None = None


class Item(msgspec.Struct):
    id: UUID
    name: str
    created_at: datetime


def make_api() -> Operations:
    async def guard(operation: Operation) -> None:
        if operation.security:
            raise Unauthorized("a token is wanted; there is none")

    api = Operations(guard=guard)

    @api.operation(
        "PUT", "/items/<uuid:item_id>", summary="Put", body=Put, ok=(201, Item), errors=(Conflict,), tags=("items",)
    )
    async def put_item(item_id: UUID, body: Put) -> Item:
        """Store an item."""
        return Item(item_id, f"{body.name}/{body.size_bytes}", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))

    @api.operation("GET", "/items", summary="List", query=Search, ok=(200, dict[str, Any]))
    async def list_items(query: Search) -> dict[str, Any]:
        return {"limit": query.limit, "cursor": query.cursor}

    @api.operation("DELETE", "/items/<uuid:item_id>", summary="Delete", ok=(204, None), errors=(NotFound,))
    async def delete_item(item_id: UUID) -> None:
        if str(item_id) != ITEM:
            raise NotFound(f"there is no item {item_id}")

    @api.operation("POST", "/private", summary="Private", body=Put, ok=(200, None), security=("bearer",))
    async def private(body: Put) -> object:
        return json_response({"never": "here"}, 202, {"Location": "/x"})

    return api


@pytest.fixture
def client() -> Client:
    app = FrontQuart("test")
    install_problems(app)
    make_api().install(app)
    return app.test_client()


async def put(client: Client, body: bytes, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
    response = await client.put(f"/items/{ITEM}", data=body, headers={"Content-Type": content_type})
    return response.status_code, msgspec.json.decode(await response.get_data(as_text=False))


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
async def test_json_is_taken_under_any_content_type(client: Client, content_type: str) -> None:
    """A JSON body is decoded whatever its declared type; ids and times are encoded as RFC 9562 and RFC 3339 in UTC say."""
    status, answer = await put(client, b'{"name": "a", "size_bytes": 5.0}', content_type)
    assert status == 201
    assert answer == {"id": ITEM, "name": "a/5", "created_at": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body is empty"),
        (b"{", "cannot be read"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `name`"),
        (b'{"name": "a", "sizebytes": 1}', "unknown field `sizebytes`"),
        (b'{"name": 7}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": ""}', "length >= 1"),
        (b'{"name": "a", "size_bytes": "1"}', "Expected `int`, got `str`"),
        (b'{"name": "a", "size_bytes": 1.5}', "Expected `int`, got `float`"),
        (b'{"name": "a", "size_bytes": 1e999}', "out of range"),
        (b'{"name": "\xff"}', "cannot be read"),
        (b'{"name": "\\ud800"}', "cannot be read"),
        (b"[" * 60_000, "cannot be read"),
        (b'{"name": "a", "size_bytes": ' + b"9" * 5000 + b"}", "body"),
    ],
)
async def test_a_bad_body_is_refused_in_words(client: Client, body: bytes, words: str) -> None:
    """A body that does not fit is 400 `invalid`, and the detail says what was wanted and what was found."""
    status, problem = await put(client, body)
    assert (status, problem["code"]) == (400, "invalid")
    assert words in problem["detail"]


async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    """More JSON than 64 KiB is 413 `too_large`, with the limit."""
    status, problem = await put(client, b" " * (64 * 1024 + 1))
    assert (status, problem["code"], problem["limit_bytes"]) == (413, "too_large", 65536)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 200, ""),
        ("?limit=5&cursor=7", 200, ""),
        ("?limit=0", 400, ">= 1"),
        ("?limit=five", 400, "Expected `int`, got `str`"),
        ("?limits=5", 400, "'limits' is not known here; cursor, limit can be given"),
        ("?limit=5&limit=6", 400, "given 2 times"),
        ("?cursor=%ff", 400, "UTF-8 is wanted"),
    ],
)
async def test_query_parameters_are_converted_or_refused(client: Client, query: str, status: int, words: str) -> None:
    """Query parameters become typed values; unknown, repeated, ill-typed and unreadable ones are 400 and told."""
    response = await client.get(f"/items{query}")
    assert response.status_code == status
    answer = msgspec.json.decode(await response.get_data(as_text=False))
    assert words in answer.get("detail", "")
    if "cursor" in answer and query:
        assert answer == {"limit": 5, "cursor": "7"}


async def test_an_answer_without_a_body_and_an_error(client: Client) -> None:
    """None answers the declared status without a body; a raised FsnError answers its problem; a path that is no UUID is 404."""
    assert (await client.delete(f"/items/{ITEM}")).status_code == 204
    assert (await client.delete("/items/6f1d7f0e-0000-4000-8000-00000000000b")).status_code == 404
    assert (await client.delete("/items/seven")).status_code == 404


async def test_the_guard_is_asked_before_the_body_is_read(client: Client) -> None:
    """Who may not learns nothing about the body's form."""
    response = await client.post("/private", data=b"not even JSON")
    assert response.status_code == 401


def test_declarations_are_kept_for_the_openapi_document() -> None:
    """The registry lists operations in order with all that was declared."""
    first, *_, last = make_api()
    assert (first.method, first.rule, first.operation_id) == ("PUT", "/items/<uuid:item_id>", "put_item")
    assert (first.body, first.ok_status, first.ok_type) == (Put, 201, Item)
    assert (first.errors, first.tags, first.description) == ((Conflict, RateLimited), ("items",), "Store an item.")
    assert last.security == ("bearer",)


def test_a_model_that_drops_unknown_members_is_no_request() -> None:
    """Declaring a body that would silently ignore a misspelt member fails at once, as does a name used twice."""
    api = make_api()
    with pytest.raises(TypeError, match="RequestModel"):
        api.operation("PUT", "/x", summary="x", body=Item)

    async def put_item() -> None:
        pass

    with pytest.raises(TypeError, match="already"):
        api.operation("PUT", "/x", summary="x")(put_item)
