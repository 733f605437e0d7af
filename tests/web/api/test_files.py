"""The main job over HTTP: up in steps, up in one stream, down whole and in ranges, listed, deleted."""

import secrets
from datetime import datetime, timedelta

import httpx
import pytest

from fsn.core.chunking import CHUNK_BYTES
from tests.web.api.conftest import Api


async def put(user: httpx.AsyncClient, data: bytes, name: str = "f") -> dict[str, object]:
    """One streamed upload."""
    response = await user.put("/api/v1/files", params={"filename": name}, content=data)
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/api/v1/files/{response.json()['id']}"
    file: dict[str, object] = response.json()
    return file


async def test_in_three_steps(api: Api) -> None:
    """initiate, chunks by raw body and by form in any order, complete; then the download is the same bytes."""
    user = await api.user()
    data = secrets.token_bytes(2 * CHUNK_BYTES + 100)
    wanted = {"filename": "steps.bin", "size_bytes": len(data)}
    upload = (await user.post("/api/v1/files/upload/initiate", json=wanted)).json()
    assert upload["chunk_size"] == CHUNK_BYTES
    assert [(c["index"], c["size_bytes"]) for c in upload["chunks"]] == [(0, CHUNK_BYTES), (1, CHUNK_BYTES), (2, 100)]
    assert upload["encrypted_key"]
    path = f"/api/v1/files/upload/{upload['upload_id']}"
    sent = await user.post(f"{path}/chunk?index=2", content=data[2 * CHUNK_BYTES :])
    assert sent.json()["id"] == upload["chunks"][2]["id"]
    form = {"index": "0"}
    assert (await user.post(f"{path}/chunk", data=form, files={"chunk": data[:CHUNK_BYTES]})).status_code == 200
    state = (await user.get(path)).json()
    assert (state["received"], state["received_count"], state["state"]) == ([[0, 0], [2, 2]], 2, "open")
    missing = await user.post(f"{path}/complete")
    assert (missing.status_code, missing.json()["missing"]) == (409, [1])
    assert (await user.post(f"{path}/chunk?index=1", content=data[CHUNK_BYTES : 2 * CHUNK_BYTES])).status_code == 200
    file = (await user.post(f"{path}/complete", json={})).json()
    assert (file["id"], file["status"]) == (upload["file_id"], "ready")
    assert (await user.get(f"/api/v1/files/{file['id']}/download")).content == data


async def test_the_plans_curl_commands(api: Api) -> None:
    """JSON is taken under the content type that curl -d sends, a form's."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b'{"email":"test@example.com","password":"test123"}'
    assert (await api.http.post("/api/v1/auth/register", content=body, headers=form)).status_code == 201
    session = (await api.http.post("/api/v1/auth/login", content=body, headers=form)).json()
    headers = {**form, "Authorization": f"Bearer {session['token']}"}
    wanted = b'{"filename":"test.txt","size_bytes":1024}'
    upload = await api.http.post("/api/v1/files/upload/initiate", content=wanted, headers=headers)
    assert upload.status_code == 201
    me = (await api.http.get("/api/v1/auth/me", headers=headers)).json()
    assert (me["email"], me["credits"]) == ("test@example.com", "100.00")


async def test_download_headers_ranges_and_head(api: Api) -> None:
    """ETag, length, name; ranges cut to the byte; If-None-Match; HEAD without a body; 416 beyond the end."""
    user = await api.user()
    data = secrets.token_bytes(CHUNK_BYTES + 1000)
    file = await put(user, data, "naïve 🐟.bin")
    url = f"/api/v1/files/{file['id']}/download"
    whole = await user.get(url)
    assert whole.content == data
    assert whole.headers["content-length"] == str(len(data))
    assert "UTF-8''na%C3%AFve" in whole.headers["content-disposition"]
    etag = whole.headers["etag"]
    for header, part in [
        (f"bytes={CHUNK_BYTES - 5}-{CHUNK_BYTES + 4}", data[CHUNK_BYTES - 5 : CHUNK_BYTES + 5]),
        ("bytes=-10", data[-10:]),
        ("bytes=1000-", data[1000:]),
    ]:
        response = await user.get(url, headers={"Range": header, "If-Range": etag})
        assert (response.status_code, response.content) == (206, part)
    stale = await user.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, data)
    assert (await user.get(url, headers={"If-None-Match": etag})).status_code == 304
    head = await user.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
    beyond = await user.get(url, headers={"Range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")


async def test_a_form_upload(api: Api) -> None:
    """POST /files takes a browser's form, streamed; fields before the file count."""
    user = await api.user()
    data = secrets.token_bytes(CHUNK_BYTES * 2 + 3)
    response = await user.post("/api/v1/files", data={"replicas": "2"}, files={"file": ("photo.jpg", data)})
    assert response.status_code == 201, response.text
    file = response.json()
    assert (file["filename"], file["replicas"], file["size_bytes"]) == ("photo.jpg", 2, len(data))
    assert (await user.get(f"/api/v1/files/{file['id']}/download")).content == data


@pytest.mark.parametrize("size_bytes", [10, 3 << 20])
async def test_a_form_that_is_not_as_it_should_be_stores_nothing(api: Api, size_bytes: int) -> None:
    """A field that comes too late, a second file, a form that breaks off or has no file: 400, and no file is there, whole or half."""
    user = await api.user()
    file = _part(b'name="file"; filename="f"', bytes(size_bytes))
    late = _part(b'name="replicas"', b"2")
    forms = {
        "must come before the file": file + late + b"--XX--\r\n",
        "a second one follows": file + file + b"--XX--\r\n",
        "Unexpected end": file,
        "cannot be read": file[: size_bytes // 2],
        "must have a file": late + b"--XX--\r\n",
        "form field replicas: Expected `int`, got `str`; its text is 'two'": _part(b'name="replicas"', b"two")
        + file
        + b"--XX--\r\n",
        "header length": b"--XX\r\n" + b"y" * 50_000,
        "invalid_filename": _part(b'name="file"; filename="../f"', b"x") + b"--XX--\r\n",
    }
    for words, form in forms.items():
        response = await user.post(
            "/api/v1/files", content=form, headers={"Content-Type": "multipart/form-data; boundary=XX"}
        )
        assert response.status_code in (400, 413), (words, response.text)
        assert words in response.text
    assert (await user.get("/api/v1/files")).json()["files"] == []


def _part(disposition: bytes, content: bytes) -> bytes:
    return b"--XX\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + content + b"\r\n"


async def test_lists_are_paged_newest_first(api: Api) -> None:
    """Every file appears once, whatever the page size."""
    user = await api.user()
    made = [str((await put(user, b"x", f"f{number}"))["id"]) for number in range(7)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await user.get("/api/v1/files", params=query)).json()
        found += [file["id"] for file in page["files"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]


async def test_details_and_delete(api: Api) -> None:
    """Health counts live replicas; after a delete everything about the file is 404."""
    user = await api.user()
    file = await put(user, b"hello")
    url = f"/api/v1/files/{file['id']}"
    assert (await user.get(url)).json()["health"] == {
        "live_replicas": 3,
        "wanted_replicas": 3,
        "chunks_below": 0,
        "chunks_in_repair": 0,
        "proved_at": None,
    }
    assert (await user.delete(url)).status_code == 204
    for response in (await user.get(url), await user.get(f"{url}/download"), await user.delete(url)):
        assert response.status_code == 404


async def test_health_says_when_the_file_was_last_proved(api: Api) -> None:
    """By the last round that is judged, is not under suspicion, and began when the file was there."""
    user = await api.user()
    file = await put(user, b"hello")
    ready_at = datetime.fromisoformat(str(file["ready_at"]))
    hours = {1: -1, 2: 4, 3: 8, 4: 12}
    for number, after in hours.items():
        await api.network.services.db.execute(
            "insert into proof_rounds (round, begins_at, judged_at, suspicion) values (%s, %s, %s, %s)",
            [
                number,
                ready_at + timedelta(hours=after),
                None if number == 4 else ready_at,
                "all silent" if number == 3 else None,
            ],
        )
    proved_at = (await user.get(f"/api/v1/files/{file['id']}")).json()["health"]["proved_at"]
    assert datetime.fromisoformat(proved_at) == ready_at + timedelta(hours=4)


async def test_when_no_replica_can_be_read_the_answer_is_503(api: Api) -> None:
    """An error before the first byte is a status, not a broken body."""
    user = await api.user()
    file = await put(user, b"hello")
    for node in api.network.nodes:
        node.kill()
    response = await user.get(f"/api/v1/files/{file['id']}/download")
    assert (response.status_code, response.json()["code"]) == (503, "too_few_copies")


async def test_nodes_health_balance_quote_and_metrics(api: Api) -> None:
    """What anybody may see of the network, and what a user may of the account."""
    nodes = (await api.http.get("/api/v1/nodes")).json()
    assert [node["status"] for node in nodes["nodes"]] == ["online"] * 4
    one = (await api.http.get(f"/api/v1/nodes/{nodes['nodes'][0]['id']}")).json()
    assert one["name"] == "n"
    health = (await api.http.get("/health")).json()
    assert (health["status"], health["nodes_online"]) == ("ok", 4)
    user = await api.user()
    assert (await user.get("/api/v1/balance")).json()["balance"] == "100.00"
    quote = (await api.http.get("/api/v1/quote", params={"size_bytes": "1000"})).json()
    assert (quote["replicas"], quote["cost"]) == (3, "0.00")
    metrics = (await api.http.get("/metrics")).text
    assert "fsn_nodes_online 4.0" in metrics
    assert 'route="/api/v1/nodes"' in metrics
