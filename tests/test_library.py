"""The library face: what docs/how-to/embed.md shows, run."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

import fsn


@pytest.mark.parametrize(
    ("driver", "connection"), [("native", "TrioConnection"), ("trio-asyncio", "AsyncioConnection")]
)
async def test_a_network_in_one_program(tmp_path: Path, database_dsn: str, driver: str, connection: str) -> None:
    """A coordinator, three nodes and a client live in one trio program, over real libp2p and HTTP, on either database driver."""
    with trio.fail_after(60):
        config = fsn.CoordinatorConfig(
            data_dir=tmp_path / "coordinator",
            http=fsn.HttpConfig(port=0),
            p2p=fsn.P2pConfig(listen_host="127.0.0.1", tcp_port=0),
            database=fsn.DatabaseConfig(dsn=database_dsn, driver=driver),
        )
        async with fsn.open_coordinator(config) as coordinator, trio.open_nursery() as nursery:
            for number in range(3):
                node_config = await _initialised(tmp_path / f"node{number}", coordinator.url)
                nursery.start_soon(_run_node, node_config)
            while coordinator.nodes_online < 3:  # noqa: ASYNC110 - what a program would do as well
                await trio.sleep(0.05)
            await _use(coordinator.url, tmp_path)
            async with coordinator._services.db.connection() as used:
                assert type(used).__name__ == connection
            nursery.cancel_scope.cancel()


async def _initialised(folder: Path, url: str) -> fsn.NodeConfig:
    application = fsn.Application(
        data_dir=folder,
        name=folder.name,
        coordinator_url=url,
        capacity_bytes=10**9,
        p2p=fsn.P2pConfig(listen_host="127.0.0.1", tcp_port=0),
    )
    config = (await fsn.initialise(application)).config
    return fsn.NodeConfig(
        data_dir=folder,
        name=config.name,
        capacity_bytes=config.capacity_bytes,
        coordinator=config.coordinator,
        p2p=config.p2p,
        admin=type(config.admin)(port=0),
    )


async def _run_node(config: fsn.NodeConfig) -> None:
    async with fsn.open_node(config):
        await trio.sleep_forever()


async def _use(url: str, folder: Path) -> None:
    content = bytes(range(256)) * 3000
    async with fsn.Client(url) as client:
        await client.register("ann@example.com", "secret1")
        session = await client.login("ann@example.com", "secret1")
    async with fsn.Client(url, session.token) as client:
        file = await client.upload(content, filename="numbers.bin")
        await client.download(file.id, folder / "copy.bin")
        assert (folder / "copy.bin").read_bytes() == content
        details = await client.file(file.id)
        assert details.health is not None
        assert details.health.live_replicas == 3
        await client.delete(file.id)
        with pytest.raises(fsn.NotFound):
            await client.file(file.id)


def test_a_simulated_network(postgres_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's program with a simulated network runs as it stands there, on the tests' PostgreSQL."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "embed.md").read_text()
    [program] = [part for part in page.split("```python\n")[1:] if "fsn.Network(" in part]
    program = (
        program.partition("```")[0].replace("seed=7", f"seed=7, dsn={postgres_dsn!r}").replace("hours=4", "minutes=5")
    )
    exec(compile(program, "embed.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "node0          kill" in shown
    assert "get file=user0/1 size_bytes=500000" in shown


def test_every_public_name_is_there() -> None:
    """All that `__all__` promises can be imported."""
    for name in fsn.__all__:
        assert getattr(fsn, name) is not None


def test_the_client_needs_no_daemon() -> None:
    """A program that uses the client only imports neither libp2p nor a database driver nor a web server."""
    program = (
        "import sys, fsn; fsn.Client; heavy = {'libp2p', 'psycopg', 'quart', 'hypercorn'} & set(sys.modules);"
        " sys.exit(','.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
