"""The OpenAPI document is true of what a running coordinator answers, and a page shows it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from fsn.coord.database.pool import Pool
from fsn.web.config import LimitsConfig
from fsn.web.docs import ASSETS, POLICY, coordinator_document
from tests.coord.network import CONFIG, open_network
from tests.web.api.conftest import Api, open_api
from tools.http_reference import coordinator_api

SETTINGS = Path(__file__).with_name("schemathesis.toml")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


UNLIMITED = LimitsConfig(
    requests_per_second=0, logins_per_minute=0, failed_logins_per_minute=0, registrations_per_hour=0
)  # fmt: skip


@pytest.fixture
async def unlimited(pool: Pool) -> AsyncIterator[Api]:
    """The API without limits: answers of 429 to nearly all that is asked would tell nothing."""
    async with open_network(pool, CONFIG, nodes=4) as network, open_api(network, UNLIMITED) as api:
        yield api


async def test_it_is_served(api: Api) -> None:
    """`GET /openapi.json` is that document, for anybody."""
    response = await api.http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == json.loads(msgspec.json.encode(coordinator_document(coordinator_api())))


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    """`/docs` names only files of ours, which are there; its policy lets nothing else in; other names below it are not found."""
    page = await api.http.get("/docs")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in POLICY
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert {f"docs/{name}" for name in ASSETS} <= set(names)
    for name in names:
        found = await api.http.get(f"/{name}")
        assert found.status_code == 200, name
        assert found.content
    assert "http://" not in page.text + (await api.http.get("/docs/start.js")).text
    for name in ("../docs.py", "%2e%2e", "swagger-ui.js"):
        assert (await api.http.get(f"/docs/{name}")).status_code == 404


async def test_schemathesis_finds_nothing(unlimited: Api, tmp_path: Path) -> None:
    """Made-up requests, right and wrong ones, and chains of them: every answer is one that the document tells."""
    await check_with_schemathesis(unlimited, tmp_path, "--phases=coverage,stateful", "--max-examples=4")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_schemathesis_finds_nothing_in_a_long_search(unlimited: Api, tmp_path: Path, seed: int) -> None:
    """The same with many more, drawn anew."""
    config = SETTINGS.read_text().replace("deterministic = true", "deterministic = false")
    (tmp_path / "schemathesis.toml").write_text(config)
    await check_with_schemathesis(
        unlimited, tmp_path, "--max-examples=100", f"--seed={seed}", config=tmp_path / "schemathesis.toml"
    )


async def check_with_schemathesis(api: Api, folder: Path, *options: str, config: Path = SETTINGS) -> None:
    """Run it in a process of its own; its report is the failure's message."""
    user = await api.user()
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{api.http.base_url}/openapi.json", *options),
    ]
    environment = {**os.environ, "FSN_TEST_TOKEN": user.headers["Authorization"].partition(" ")[2]}
    done = await trio.run_process(
        command, cwd=folder, env=environment, check=False, capture_stdout=True, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b" passed" in done.stdout


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed here")
async def test_a_browser_shows_the_operations(api: Api, tmp_path: Path) -> None:
    """Swagger UI runs under our policy, cut off from the network, and shows every operation."""
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=15000"),
        *("--enable-logging=stderr", "--dump-dom", f"{api.http.base_url}/docs#/files/put_file"),
    ]
    done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
    shown, complaints = done.stdout.decode(), done.stderr.decode()
    assert "Content Security Policy" not in complaints
    for operation in coordinator_api():
        assert operation.summary.replace("'", "&#39;") in shown.replace("'", "&#39;"), complaints
