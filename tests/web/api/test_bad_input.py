"""Bad input over HTTP: each kind has its status and code, a sentence that says what was wanted, and never a stack trace."""

import uuid
from typing import Any

import httpx
import pytest

from tests.web.api.conftest import Api

NOBODYS_ID = "0f9a4adf-29a9-4b5b-b7e8-772911f09c78"


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The response is that problem, whole and without a look inside."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert 'File "' not in response.text
    return problem


@pytest.mark.parametrize(
    ("size", "status", "code"),
    [
        (-1, 400, "invalid"),
        (10**12 + 1, 413, "too_large"),
        (10**30, 413, "too_large"),
        (1.5, 400, "invalid"),
        ("7", 400, "invalid"),
        (None, 400, "invalid"),
        (True, 400, "invalid"),
    ],
)
async def test_sizes(api: Api, size: object, status: int, code: str) -> None:
    """Negative, huge and senseless sizes are refused at initiate."""
    user = await api.user()
    response = await user.post("/api/v1/files/upload/initiate", json={"filename": "f", "size_bytes": size})
    check_problem(response, status, code)


async def test_an_empty_file_is_a_file(api: Api) -> None:
    """Zero bytes: initiate and complete, or one PUT; health is null, the download empty."""
    user = await api.user()
    upload = (await user.post("/api/v1/files/upload/initiate", json={"filename": "e", "size_bytes": 0})).json()
    assert upload["chunks"] == []
    file = (await user.post(f"/api/v1/files/upload/{upload['upload_id']}/complete")).json()
    assert (file["status"], file["size_bytes"]) == ("ready", 0)
    put = await user.put("/api/v1/files", params={"filename": "e2"}, content=b"")
    assert (put.status_code, put.json()["size_bytes"]) == (201, 0)
    details = (await user.get(f"/api/v1/files/{file['id']}")).json()
    assert details["health"]["live_replicas"] is None
    download = await user.get(f"/api/v1/files/{file['id']}/download")
    assert (download.status_code, download.content) == (200, b"")


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "/", ".", "..", "", "nul\0l", "line\nend", "x" * 256, "é" * 128, "\ud800", "tab\t"]
)
async def test_names_that_cannot_be(api: Api, name: str) -> None:
    """Slashes, NUL and control characters, more than 255 bytes and lone surrogates are refused."""
    user = await api.user()
    body = b'{"filename":%s,"size_bytes":1}' % _json_text(name)
    response = await user.post("/api/v1/files/upload/initiate", content=body)
    problem = response.json()
    assert response.status_code == 400, problem
    assert problem["code"] in ("invalid_filename", "invalid")


@pytest.mark.parametrize("name", ["🐟.txt", "ünï cødé", "a" * 255, "back\\slash", 'quote".txt', "%2e%2e", "-rf"])
async def test_names_that_can(api: Api, name: str) -> None:
    """Emoji, blanks, quotes and 255 bytes are names; they come back as they were, also in the download's header."""
    user = await api.user()
    file = (await user.put("/api/v1/files", params={"filename": name}, content=b"x")).json()
    assert file["filename"] == name
    response = await user.get(f"/api/v1/files/{file['id']}/download")
    assert response.content == b"x"
    assert "\n" not in response.headers["content-disposition"]


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ("index=0", b"abc", 400, "wrong_chunk_size"),
        ("index=0", b"abcde", 400, "wrong_chunk_size"),
        ("index=0", b"", 400, "wrong_chunk_size"),
        ("index=1", b"abcd", 400, "invalid"),
        ("index=-1", b"abcd", 400, "invalid"),
        ("index=99999999999999999999", b"abcd", 400, "invalid"),
        ("index=x", b"abcd", 400, "invalid"),
        ("", b"abcd", 400, "invalid"),
        ("index=0&index=0", b"abcd", 400, "invalid"),
        ("index=0&other=1", b"abcd", 400, "invalid"),
        ("index=0", bytes(400_000), 413, "too_large"),
    ],
)
async def test_chunks(api: Api, query: str, content: bytes, status: int, code: str) -> None:
    """A chunk of the wrong size or under an index out of range is refused, with what was wanted."""
    user = await api.user()
    upload = (await user.post("/api/v1/files/upload/initiate", json={"filename": "f", "size_bytes": 4})).json()
    response = await user.post(f"/api/v1/files/upload/{upload['upload_id']}/chunk?{query}", content=content)
    check_problem(response, status, code)


async def test_a_chunk_again(api: Api) -> None:
    """The same bytes again are a success, other bytes a conflict."""
    user = await api.user()
    upload = (await user.post("/api/v1/files/upload/initiate", json={"filename": "f", "size_bytes": 4})).json()
    path = f"/api/v1/files/upload/{upload['upload_id']}/chunk?index=0"
    for _ in range(2):
        assert (await user.post(path, content=b"abcd")).status_code == 200
    check_problem(await user.post(path, content=b"abcX"), 409, "chunk_differs")


async def test_tokens(api: Api) -> None:
    """No token, half a token, a forged and an expired one are told apart, with a challenge header."""
    http = api.http
    for headers, code in [
        ({}, "token_missing"),
        ({"Authorization": "Basic abc"}, "token_missing"),
        ({"Authorization": "Bearer"}, "token_missing"),
        ({"Authorization": "Bearer abc"}, "token_invalid"),
        ({"Authorization": "Bearer " + _unsigned_token()}, "token_invalid"),
    ]:
        response = await http.get("/api/v1/files", headers=headers)
        check_problem(response, 401, code)
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("strange", ["not-an-id", NOBODYS_ID, "0", "%00", "🐟", "' or 1=1"])
async def test_strange_ids_are_not_found(api: Api, strange: str) -> None:
    """Whatever stands where an id should: 404."""
    user = await api.user()
    for method, path in [
        ("GET", f"/api/v1/files/{strange}"),
        ("GET", f"/api/v1/files/{strange}/download"),
        ("DELETE", f"/api/v1/files/{strange}"),
        ("GET", f"/api/v1/files/upload/{strange}"),
        ("POST", f"/api/v1/files/upload/{strange}/chunk?index=0"),
        ("POST", f"/api/v1/files/upload/{strange}/complete"),
        ("GET", f"/api/v1/nodes/{strange}"),
    ]:
        check_problem(await user.request(method, path), 404, "not_found")


async def test_anothers_file_is_not_found(api: Api) -> None:
    """404 rather than 403: nobody learns that it exists."""
    ann, bob = await api.user(), await api.user("bob@example.com")
    file = (await ann.put("/api/v1/files", params={"filename": "f"}, content=b"x")).json()
    for method in ("GET", "DELETE"):
        check_problem(await bob.request(method, f"/api/v1/files/{file['id']}"), 404, "not_found")
    check_problem(await bob.get(f"/api/v1/files/{file['id']}/download"), 404, "not_found")
    assert (await bob.get("/api/v1/files")).json() == {"files": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid"),
        (b"{", "invalid"),
        (b"[]", "invalid"),
        (b'"x"', "invalid"),
        (b'{"email":"a@b.c"}', "invalid"),
        (b'{"email":"a@b.c","password":"secret1","admin":true}', "invalid"),
        (b'{"email":"nobody","password":"secret1"}', "invalid_email"),
        (b'{"email":"a@b.c","password":"short"}', "invalid_password"),
        (b'{"email":"a@b.c","password":"' + b"x" * 73 + b'"}', "invalid_password"),
        (b'{"email":"a@b.c","password":"secret\\u0000"}', "invalid_password"),
        (b'{"email":"a b@c.d","password":"secret1"}', "invalid_email"),
        (b"\xff\xfe", "invalid"),
        (b"[" * 10_000, "invalid"),
    ],
)
async def test_registrations_that_cannot_be(api: Api, body: bytes, code: str) -> None:
    """Malformed JSON, unknown members, bad addresses and passwords are 400 with what was wanted."""
    check_problem(await api.http.post("/api/v1/auth/register", content=body), 400, code)


async def test_login_does_not_tell_who_exists(api: Api) -> None:
    """An unknown address and a wrong password get the same answer."""
    await api.user()
    answers = []
    for email, password in [
        ("ann@example.com", "wrong12"),
        ("nobody@example.com", "secret1"),
        ("ann@example.com", "x" * 500),
    ]:
        response = await api.http.post("/api/v1/auth/login", json={"email": email, "password": password})
        problem = check_problem(response, 401, "wrong_credentials")
        answers.append((problem["detail"], problem["title"]))
    assert len(set(answers)) == 1


async def test_an_address_is_taken_whatever_its_case(api: Api) -> None:
    """409 for a second account."""
    await api.user()
    body = {"email": "ANN@example.com", "password": "secret1"}
    check_problem(await api.http.post("/api/v1/auth/register", json=body), 409, "email_taken")


async def test_too_few_nodes_says_how_many(api: Api) -> None:
    """503 with both numbers and a Retry-After."""
    for node in api.network.nodes[:2]:
        node.kill()
    user = await api.user()
    response = await user.put("/api/v1/files", params={"filename": "f"}, content=b"x")
    problem = check_problem(response, 503, "too_few_nodes")
    assert (problem["wanted"], problem["found"]) == (3, 2)
    assert int(response.headers["retry-after"]) > 0


async def test_methods_and_paths_that_are_not_there(api: Api) -> None:
    """404 and 405 are problems, too; 405 says what is possible."""
    check_problem(await api.http.get("/nothing"), 404, "not_found")
    response = await api.http.put("/api/v1/auth/login", content=b"{}")
    check_problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=!!!", "cursor=AAAA", "colour=red"])
async def test_pages_that_cannot_be(api: Api, query: str) -> None:
    """Limits out of range and cursors that were not given are 400."""
    user = await api.user()
    check_problem(await user.get(f"/api/v1/files?{query}"), 400, "invalid")
    check_problem(await api.http.get(f"/api/v1/nodes?{query}"), 400, "invalid")


def _json_text(text: str) -> bytes:
    import json

    return json.dumps(text).encode()


def _unsigned_token() -> str:
    import jwt

    return jwt.encode({"sub": str(uuid.uuid4()), "exp": 2**40, "iss": "fsn"}, key="", algorithm="none")


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([("replicas", (None, "2")), ("file", ("a.txt", b"abc"))], 201),
        ([("other", (None, "x")), ("file", ("a.txt", b"abc")), ("submit", (None, "Send"))], 201),
        ([("file", ("a.txt", b"abc")), ("replicas", (None, "2"))], 400),
        ([("file", ("a.txt", b"abc")), ("file", ("b.txt", b"def"))], 400),
        ([("replicas", (None, "null")), ("file", ("a.txt", b"abc"))], 400),
        ([("replicas", (None, "11")), ("file", ("a.txt", b"abc"))], 400),
        ([("replicas", (None, "2"))], 400),
    ],
)
async def test_a_form_is_taken_whole_or_not_at_all(api: Api, parts: list[tuple[str, Any]], wanted: int) -> None:
    """What would have had to come before the file, or is a second file, is refused rather than dropped, and nothing is stored."""
    user = await api.user()
    response = await user.post("/api/v1/files", files=parts)
    assert response.status_code == wanted, response.text
    assert len((await user.get("/api/v1/files")).json()["files"]) == (wanted == 201)


async def test_a_parameter_is_never_null(api: Api) -> None:
    """The text `null` is no cursor and no number: taken for none, it would begin a list anew, for ever. A file may be called so."""
    user = await api.user()
    for path in ("/api/v1/files?cursor=null", "/api/v1/quote?size_bytes=1&replicas=NULL"):
        check_problem(await user.get(path), 400, "invalid")
    assert (await user.put("/api/v1/files?filename=null", content=b"x")).json()["filename"] == "null"


async def test_a_quote_is_for_a_size_that_a_file_can_have(api: Api) -> None:
    """One byte more than the largest file is refused as a parameter out of range."""
    largest = 562_949_953_159_168
    assert (await api.http.get(f"/api/v1/quote?size_bytes={largest}")).status_code == 200
    check_problem(await api.http.get(f"/api/v1/quote?size_bytes={largest + 1}"), 400, "invalid")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/files/upload/initiate", {"POST"}),
        ("/api/v1/nodes/register", {"POST"}),
        (f"/api/v1/nodes/{NOBODYS_ID}", {"GET", "HEAD"}),
    ],
)
async def test_methods_that_are_not_there(api: Api, path: str, methods: set[str]) -> None:
    """405 and OPTIONS name the methods of this path, and none of a path with an id in the same place."""
    refused = await api.http.patch(path)
    check_problem(refused, 405, "method_not_allowed")
    for response in (refused, await api.http.options(path)):
        assert set(response.headers["allow"].split(", ")) - {"OPTIONS"} == methods
