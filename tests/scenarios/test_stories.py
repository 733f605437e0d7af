"""The stories that come with the program hold; three lives of a week by default, all stories in a slow run."""

import pytest

from fsn.sim.story import builtin_stories, find_story, play_story

LONG = ("random_life", "random_week")


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
