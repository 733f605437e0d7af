"""The stories that come with the program hold; three lives of a week by default, all stories in a slow run."""

from types import ModuleType

import pytest

from fsn.sim.story import builtin_stories, find_story, play_story
from scenarios import kill_a_node, own_policy, two_coordinators
from scenarios.telling import play

LONG = ("economy_year", "random_life", "random_week")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_week_in_which_anything_may_happen(postgres_dsn: str, seed: int) -> None:
    """Nodes die, are away, come back; files come and go: nothing is lost, whatever the seed."""
    verdict = play_story(find_story("random_week"), seed, dsn=postgres_dsn)
    assert (list(verdict.violations), list(verdict.failures)) == ([], []), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in builtin_stories() if name not in LONG])
def test_a_story_holds(postgres_dsn: str, name: str) -> None:
    """No violation, no failure."""
    verdict = play_story(find_story(name), 1, dsn=postgres_dsn)
    assert (list(verdict.violations), list(verdict.failures)) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("story", [kill_a_node, two_coordinators])
def test_a_story_in_python_holds(postgres_dsn: str, story: ModuleType) -> None:
    """It raises nothing, and the invariants hold at its end."""
    assert play(story.tell, seed=1, dsn=postgres_dsn, **story.NETWORK)


@pytest.mark.slow
def test_who_waits_for_silent_nodes_a_day_copies_less_than_who_waits_an_hour(postgres_dsn: str) -> None:
    """What nights cost is copies; the story itself checks that no file is lost under either policy."""
    patient, hasty = (own_policy.copies(hours, seed=1, dsn=postgres_dsn) for hours in (24, 1))
    assert 2 * patient < hasty
