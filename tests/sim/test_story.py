"""Stories: files that are read with every mistake told, and played to a verdict that shows what did not hold."""

from pathlib import Path

import pytest

from fsn.core.errors import ConfigError
from fsn.sim.clock import VirtualClock
from fsn.sim.invariants import Invariants
from fsn.sim.story import Story, Verdict, builtin_stories, find_story, load_story, play_story
from fsn.sim.verbs import VERBS
from tests.sim.conftest import OpenNetwork

HEAD = 'title = "t"\ntells = "a story"\n[network]\nnodes = 4\n'


def told(folder: Path, steps: str, head: str = HEAD) -> Story:
    """A story with these steps, one `verb; setting = value` a line."""
    text = head
    for line in steps.strip().splitlines():
        verb, *settings = (part.strip() for part in line.split(";"))
        text += "\n".join(["[[steps]]", f'do = "{verb}"', *settings, ""])
    file = folder / "story.toml"
    file.write_text(text)
    return load_story(file)


def played(folder: Path, dsn: str, steps: str) -> Verdict:
    """The verdict on such a story."""
    return play_story(told(folder, steps), 3, dsn=dsn)


@pytest.mark.parametrize("name", builtin_stories())
def test_our_stories_can_be_played(name: str) -> None:
    """Each is read without a mistake, and says what it tells."""
    story = find_story(name)
    assert story.steps
    assert len(story.tells) > 20


def test_our_stories_use_most_verbs() -> None:
    """There is an example of nearly all that can be told."""
    used = {step.verb for name in builtin_stories() for step in find_story(name).steps}
    assert len(used) > 0.6 * len(VERBS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "title: text is wanted, found nothing"),
        (HEAD, "steps: one or more [[steps]] are wanted"),
        (HEAD + '[[steps]]\ndo = "fly"\n', "steps[1].do: one of add_nodes, advance"),
        (HEAD + '[[steps]]\ndo = "advance"\nhours = "x"\n', "steps[1].hours: a number is wanted, found 'x'"),
        (HEAD + '[[steps]]\ndo = "advance"\nweeks = 1\n', "steps[1].weeks: unknown setting"),
        (HEAD + '[[steps]]\ndo = "put"\nfiles = 0\n', "steps[1].files:"),
        (HEAD + '[[steps]]\ndo = "put"\nsize = "3 apples"\n', "steps[1].size:"),
        (HEAD + 'colour = "red"\n', "network.colour: unknown setting"),
        (HEAD + "[policy.upload]\nreplicas = 99\n", "policy.upload.replicas:"),
        ("policies = 1\n" + HEAD, "policies: unknown"),
        (HEAD + "[[steps]]\nverb = 1\n[[steps]]\n", "steps[2].do:"),
    ],
)
def test_every_mistake_is_told(tmp_path: Path, text: str, told: str) -> None:
    """By its place: what was wanted, what was found."""
    file = tmp_path / "story.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_story(file)
    assert told in str(caught.value)


def test_a_story_that_is_not_there(tmp_path: Path) -> None:
    """Names are those of our stories; a file must be there."""
    with pytest.raises(ConfigError, match="small_day"):
        find_story("no_such_story")
    with pytest.raises(ConfigError, match="no such file"):
        find_story(str(tmp_path / "none.toml"))


def test_a_good_story(tmp_path: Path, postgres_dsn: str) -> None:
    """Everything holds; the same seed gives the same digest."""
    steps = """
        put; files = 2; size = "300KB"
        stop; nodes = [1]
        advance; minutes = 5
        start
        wait_online
        expect_replicas; least = 3; most = 3
        expect_status; nodes = [0]; status = "online"
        expect_events; what = "put"; least = 2; most = 2
        read_all
    """
    first, again = played(tmp_path, postgres_dsn, steps), played(tmp_path, postgres_dsn, steps)
    assert (first.failures, first.violations) == ([], [])
    assert first.is_good
    assert first.digest == again.digest
    assert (first.files, first.lost, first.refused) == (2, 0, 0)
    assert first.as_json()["good"] is True


def test_what_is_expected_in_vain_is_told(tmp_path: Path, postgres_dsn: str) -> None:
    """Each expectation that is not met, with what was found."""
    verdict = played(
        tmp_path,
        postgres_dsn,
        """
        put; files = 1
        kill; nodes = [0, 1, 2]
        put; files = 1
        expect_replicas; least = 3
        expect_status; nodes = [3]; status = "left"
        expect_events; what = "put"; least = 5
        read_all
        """,
    )
    assert not verdict.is_good
    assert verdict.refused == 1
    assert [failure.partition(";")[0] for failure in verdict.failures[:3]] == [
        "3 replicas of each chunk",
        "node3 left",
        "put between 5 and 1000000000 times",
    ]
    assert verdict.violations == []


def test_a_lost_file_is_a_violation(tmp_path: Path, postgres_dsn: str) -> None:
    """When all disks with a chunk are gone, the promise is broken, and the seed is in the verdict."""
    verdict = played(tmp_path, postgres_dsn, "put; files = 1\ndie; nodes = [0, 1, 2, 3]\nadvance; minutes = 1")
    assert [violation.invariant for violation in verdict.violations] == ["kept"]
    assert (verdict.lost, verdict.seed) == (1, 3)


async def test_a_replica_that_is_not_there_is_found_out(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """One that a node does not list may be counted for a while, not for ever."""
    async with open_network(nodes=3, heartbeat_seconds=600, shortest_rest_seconds=300) as net:
        await net.user.put(b"x" * 1000)
        invariants = Invariants(net, find_out_seconds=60)
        net.coordinator.lose_database()  # nobody finds out
        await net.nodes[0].disk.forget(net.nodes[0].replicas())
        assert await invariants.check() == []
        await net.advance(minutes=2)
        assert {violation.invariant for violation in await invariants.check()} == {"present"}
        invariants.close()


async def test_wrong_money_is_a_violation(open_network: OpenNetwork, virtual_clock: VirtualClock) -> None:
    """A balance that no entries explain."""
    async with open_network(nodes=0) as net:
        invariants = Invariants(net)
        assert await invariants.check() == []
        await net.coordinator.services.db.execute("update ledger_account set balance = balance + 1 where kind = 'user'")
        assert [violation.invariant for violation in await invariants.check()] == ["ledger"]
        invariants.close()


def test_a_life_is_repeatable(tmp_path: Path, postgres_dsn: str) -> None:
    """All that chance decides comes from the seed."""
    head = 'title = "t"\ntells = "s"\n[network]\nnodes = 5\nheartbeat_seconds = 3600\nshortest_rest_seconds = 1800\n'
    story = told(tmp_path, "put; files = 2\nlife; days = 1; outages_per_week = 5; rot_per_week = 2", head)
    first, again = (play_story(story, 9, dsn=postgres_dsn) for _ in range(2))
    assert [str(event) for event in first.events] == [str(event) for event in again.events]
    assert first.violations == []


def test_who_declares_is_heard(tmp_path: Path, postgres_dsn: str) -> None:
    """Maintenance and drain show in the catalogue, and are over when they are ended; what is refused is an event, no failure."""
    verdict = played(
        tmp_path,
        postgres_dsn,
        """
        put; files = 1; replicas = 4
        maintenance; nodes = [0]; hours = 2
        expect_status; nodes = [0]; status = "maintenance"
        end_maintenance; nodes = [0]
        drain; nodes = [1]
        expect_status; nodes = [1]; status = "draining"
        maintenance; nodes = [1]
        expect_events; what = "maintenance_refused"; who = "node1"; least = 1; most = 1
        cancel_drain; nodes = [1]
        advance; seconds = 90
        expect_status; nodes = [0, 1]; status = "online"
        """,
    )
    assert (verdict.failures, verdict.violations) == ([], [])


def test_a_coordinator_is_killed_amid_an_upload(tmp_path: Path, postgres_dsn: str) -> None:
    """The user is told, and neither owed nor charged; who waits for an event that nobody tells of waits in vain."""
    verdict = played(
        tmp_path,
        postgres_dsn,
        """
        place; latency_seconds = 0.2
        kill_amid_upload; size = "3MB"
        expect_events; what = "put_broken"; least = 1; most = 1
        start_coordinator
        kill_coordinator_at; what = "node_online"
        expect_events; what = "kill"; least = 2; most = 2
        kill_coordinator_at; what = "node_online"; hours = 0.1
        expect_charges; files = 0
        expect_charges; files = 1
        """,
    )
    assert [failure.partition(";")[0] for failure in verdict.failures] == [
        "node_online within 0.1 hours",
        "1 files with a price",
    ]
    assert verdict.violations == []
    assert (verdict.files, verdict.lost) == (0, 0)
