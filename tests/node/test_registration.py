"""`initialise` registers once, finishes what a crash left, and then changes nothing."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from quart import Response

from fsn.core.errors import ConfigError, Conflict, Forbidden, FsnError, Invalid, ProtocolViolation, Unreachable
from fsn.node.config import API_KEY_NAME, CONFIG_NAME, IDENTITY_NAME
from fsn.node.registration import Application, initialise, load_node_config
from fsn.runtime.data_folder import locked_folder
from tests.node.fake_coordinator import FakeCoordinator, open_fake_coordinator


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    """A listening one."""
    async with open_fake_coordinator() as fake:
        yield fake


@pytest.fixture
def application(coordinator: FakeCoordinator, tmp_path: Path) -> Application:
    """A good one."""
    return Application(
        data_dir=tmp_path / "node", name="attic", coordinator_url=coordinator.url, capacity_bytes=10**9, region="eu"
    )


async def test_a_new_folder_is_registered(coordinator: FakeCoordinator, application: Application) -> None:
    """Key, API key and configuration are written for the owner alone, with the coordinator's peer id pinned."""
    done = await initialise(application)
    assert done.is_new
    assert done.config.coordinator.peer_id == coordinator.identity.peer
    assert done.config.node_id in coordinator.nodes.values()
    (asked,) = coordinator.registrations
    assert (asked["name"], asked["capacity_bytes"], asked["region"]) == ("attic", 10**9, "eu")
    for name in (IDENTITY_NAME, API_KEY_NAME, CONFIG_NAME):
        assert stat.S_IMODE((application.data_dir / name).stat().st_mode) == 0o600


async def test_the_configuration_is_read_back(application: Application, tmp_path: Path) -> None:
    """What init wrote is what start reads, also after the folder was moved; the environment comes on top."""
    done = await initialise(application)
    assert load_node_config(application.data_dir) == done.config
    application.data_dir.rename(tmp_path / "moved")
    moved = load_node_config(tmp_path / "moved", environment={"FSN_P2P__TCP_PORT": "4002"})
    assert moved == attrs.evolve(done.config, data_dir=tmp_path / "moved", p2p=attrs.evolve(moved.p2p, tcp_port=4002))
    assert moved.p2p.tcp_port == 4002


async def test_a_second_init_changes_nothing(coordinator: FakeCoordinator, application: Application) -> None:
    """An initialised folder is left as it is and the coordinator is not asked, whatever is wanted now."""
    first = await initialise(application)
    before = {path.name: path.read_bytes() for path in application.data_dir.iterdir()}
    again = await initialise(attrs.evolve(application, name="cellar", coordinator_url="http://127.0.0.1:9"))
    assert not again.is_new
    assert again.config == first.config
    assert {path.name: path.read_bytes() for path in application.data_dir.iterdir()} == before
    assert len(coordinator.registrations) == 1


async def test_a_second_init_says_so_while_the_node_runs(
    coordinator: FakeCoordinator, application: Application
) -> None:
    """The lock of a running node does not keep anybody from asking."""
    await initialise(application)
    with locked_folder(application.data_dir):
        assert not (await initialise(application)).is_new


async def test_an_interrupted_init_is_finished_by_the_next(
    coordinator: FakeCoordinator, application: Application
) -> None:
    """With the key there and the configuration not, the same key is registered again: the same node, a new API key."""
    first = await initialise(application)
    key, api_key = ((application.data_dir / name).read_bytes() for name in (IDENTITY_NAME, API_KEY_NAME))
    (application.data_dir / CONFIG_NAME).unlink()
    again = await initialise(application)
    assert again.is_new
    assert again.config == first.config
    assert (application.data_dir / IDENTITY_NAME).read_bytes() == key
    assert (application.data_dir / API_KEY_NAME).read_bytes() != api_key
    assert len(coordinator.nodes) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((403, {"code": "forbidden", "title": "no", "status": 403, "detail": "not here"}), Forbidden),
        ((201, {"node_id": 5}), ProtocolViolation),
        ((201, []), ProtocolViolation),
        ((404, {}), FsnError),
    ],
)
async def test_a_refused_registration_leaves_no_configuration(
    coordinator: FakeCoordinator, application: Application, answer: tuple[int, object], kind: type[FsnError]
) -> None:
    """A refusal or a strange answer is an error by its class; the next init starts over with the same key."""
    coordinator.answer_instead = Response(msgspec.json.encode(answer[1]), answer[0], content_type="application/json")
    with pytest.raises(kind):
        await initialise(application)
    assert not (application.data_dir / CONFIG_NAME).exists()
    coordinator.answer_instead = None
    assert (await initialise(application)).is_new


async def test_an_unreachable_coordinator_is_named(application: Application) -> None:
    """The error says which URL to check."""
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9"):
        await initialise(attrs.evolve(application, coordinator_url="http://127.0.0.1:9"))


@pytest.mark.parametrize("change", [{"name": ""}, {"capacity_bytes": 1}, {"coordinator_url": "localhost"}])
async def test_a_bad_application_is_invalid(application: Application, change: dict[str, Any]) -> None:
    """Mistakes are told before anything is registered."""
    with pytest.raises(Invalid):
        await initialise(attrs.evolve(application, **change))


async def test_a_folder_in_use_is_refused(application: Application) -> None:
    """While another process holds the folder, init says which one."""
    with locked_folder(application.data_dir), pytest.raises(Conflict, match="process"):
        await initialise(application)


async def test_a_bad_configuration_lists_every_mistake(application: Application) -> None:
    """Unknown and wrong settings are reported by their keys."""
    await initialise(application)
    file = application.data_dir / CONFIG_NAME
    file.write_text(file.read_text().replace("port = 8090", 'port = 70000\ncolour = "red"'))
    with pytest.raises(ConfigError) as caught:
        load_node_config(application.data_dir)
    assert "admin" in str(caught.value)
    assert "colour" in str(caught.value)
